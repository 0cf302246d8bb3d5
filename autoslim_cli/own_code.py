"""Import what a recipe names of the user's own code: `package.module:factory`, or `./net.py:factory`."""

import hashlib
import importlib
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from autoslim_cli.beside import OwnFiles, files_of, place_of
from autoslim_cli.errors import UsageError
from autoslim_cli.near import hint

_OWN = OwnFiles()


def load_factory(name: str, directory: Path, key: str) -> Callable[..., Any]:
    """Return a factory; a file is looked up relative to `directory`, and may import the files beside it.

    Raises UsageError naming the recipe key `key`.
    """
    place, _, attribute = name.rpartition(":")
    named, is_file = f"{key}: {name}", place.endswith(".py")
    try:
        module = _of_file(directory, place, named) if is_file else _of_package(place, named)
    except UsageError:
        raise
    except Exception as error:  # the module's own code may fail in any way
        is_dotted = is_file and "no known parent package" in str(error)
        advice = "; a file that a recipe names is in no package: import what is beside it without a dot" * is_dotted
        raise UsageError(f"{named} cannot be imported: {type(error).__name__}: {error}{advice}") from None
    factory = getattr(module, attribute, None)
    if not callable(factory):
        factories = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise UsageError(f"{key}: {place} has no factory {attribute!r}; {hint(attribute, factories, 3)}")
    return factory  # type: ignore[no-any-return]


def code_digest(name: str, directory: Path) -> str:
    """Return `sha256:...` of the code that a factory was loaded from: what it does may change with it.

    That is its file and what this imports, directly or not: of a file of the recipe the files beside it, of a module
    those of its package, unless that is installed: then its version would count, and is not known.
    """
    place = name.rpartition(":")[0]
    if place.endswith(".py"):
        file = (directory / place).resolve()
        root = file.parent
        files = files_of([file], root, root)
    else:
        module = sys.modules.get(place)
        file = Path(getattr(module, "__file__", None) or "")
        root = Path(*file.parts[: -len(place.split(".")) - hasattr(module, "__path__")])
        within = root / place.partition(".")[0]
        packages = [path / "__init__.py" for path in file.parents if path.is_relative_to(within)]
        is_installed = {"site-packages", "dist-packages"} & set(file.parts)
        files = [file] * file.is_file() if is_installed else files_of([file, *packages], root, within)
    held = [(one.relative_to(root).as_posix(), one.read_bytes()) for one in files]
    return f"sha256:{hashlib.sha256(repr(held).encode()).hexdigest()}"


def _of_file(directory: Path, place: str, named: str) -> ModuleType:
    """Return the module of a file of a recipe. Raises UsageError if there is none."""
    path = (directory / place).resolve()
    if not path.is_file():
        raise UsageError(f"{named}: no file {path}")
    return _OWN.load(path, directory.resolve(), named)


def _of_package(name: str, named: str) -> ModuleType:
    """Return a module that can be imported, as from the current directory."""
    here, top = str(Path.cwd()), name.partition(".")[0]
    spec = PathFinder.find_spec(top, [here]) if _OWN.has(top) else None
    if spec is not None and place_of(spec) != place_of(sys.modules[top].__spec__):
        raise UsageError(
            f"{named}: {top} lies in {here}, and beside a file of the recipe, which was imported: rename one"
        )
    sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    finally:
        with suppress(ValueError):
            sys.path.remove(here)
