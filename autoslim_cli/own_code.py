"""Import what a recipe names of the user's own code: `package.module:factory`, or `./net.py:factory`."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoslim_cli.errors import UsageError
from autoslim_cli.near import hint


def load_factory(name: str, directory: Path, key: str) -> Callable[..., Any]:
    """Return a factory; a file is looked up relative to `directory`. Raises UsageError naming the recipe key `key`."""
    place, _, attribute = name.rpartition(":")
    try:
        if place.endswith(".py"):
            path = (directory / place).resolve()
            if not path.is_file():
                raise UsageError(f"{key}: {name}: no file {path}")
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[path.stem] = module
            spec.loader.exec_module(module)
        else:
            sys.path.insert(0, str(Path.cwd()))
            try:
                module = importlib.import_module(place)
            finally:
                sys.path.pop(0)
    except UsageError:
        raise
    except Exception as error:  # the module's own code may fail in any way
        advice = "; a file that is named in a recipe stands alone: put what it imports into it, or into a package"
        missing = str(error.name) if isinstance(error, ModuleNotFoundError) and place.endswith(".py") else ""
        beside = (directory / place).with_name(f"{missing.partition('.')[0]}.py").is_file()
        raise UsageError(
            f"{key}: {name} cannot be imported: {type(error).__name__}: {error}{advice if beside else ''}"
        ) from None
    factory = getattr(module, attribute, None)
    if not callable(factory):
        factories = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise UsageError(f"{key}: {place} has no factory {attribute!r}; {hint(attribute, factories, 3)}")
    return factory  # type: ignore[no-any-return]


def source_of(name: str, directory: Path) -> bytes:
    """Return the source file of a factory's module, empty if there is none: what it does may change with it."""
    place = name.rpartition(":")[0]
    if place.endswith(".py"):
        return (directory / place).read_bytes()
    file = getattr(sys.modules.get(place), "__file__", None)
    return Path(file).read_bytes() if file else b""
