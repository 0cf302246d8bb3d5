"""Import what a recipe names of the user's own code: `package.module:factory`, or `./net.py:factory`."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from autoslim_cli.beside import Beside, files_of
from autoslim_cli.errors import UsageError
from autoslim_cli.near import hint

_BESIDE = Beside()


def load_factory(name: str, directory: Path, key: str) -> Callable[..., Any]:
    """Return a factory; a file is looked up relative to `directory`, and may import the files beside it.

    Raises UsageError naming the recipe key `key`.
    """
    place, _, attribute = name.rpartition(":")
    is_file = place.endswith(".py")
    try:
        module = _of_file(directory / place, f"{key}: {name}") if is_file else _of_package(place)
    except UsageError:
        raise
    except Exception as error:  # the module's own code may fail in any way
        is_dotted = is_file and "no known parent package" in str(error)
        advice = "; a file that a recipe names is in no package: import what is beside it without a dot" * is_dotted
        raise UsageError(f"{key}: {name} cannot be imported: {type(error).__name__}: {error}{advice}") from None
    factory = getattr(module, attribute, None)
    if not callable(factory):
        factories = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise UsageError(f"{key}: {place} has no factory {attribute!r}; {hint(attribute, factories, 3)}")
    return factory  # type: ignore[no-any-return]


def source_of(name: str, directory: Path) -> bytes:
    """Return the code that a factory was loaded from: what it does may change with it.

    That is its file and what this imports, directly or not: of a file of the recipe the files beside it, of a module
    those of its package. Empty if there is none.
    """
    place = name.rpartition(":")[0]
    if place.endswith(".py"):
        file = (directory / place).resolve()
        root = within = file.parent
    else:
        module = sys.modules.get(place)
        file = Path(getattr(module, "__file__", None) or "")
        root = Path(*file.parts[: -len(place.split(".")) - hasattr(module, "__path__")])
        within = root / place.partition(".")[0]
    return repr([(one.relative_to(root).as_posix(), one.read_bytes()) for one in files_of(file, root, within)]).encode()


def _of_package(name: str) -> ModuleType:
    """Return a module that can be imported, as from the current directory."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def _of_file(file: Path, named: str) -> ModuleType:
    """Return the module of a file, which is run anew. Raises UsageError if there is none."""
    path = file.resolve()
    if not path.is_file():
        raise UsageError(f"{named}: no file {path}")
    # Its own name may be that of another module, which whoever imports that would get.
    spec = importlib.util.spec_from_file_location(f"autoslim_own_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where data classes and pickle look
    with _BESIDE.importable(path.parent):
        spec.loader.exec_module(module)
    return module
