"""Import the files that a recipe names, and let them import what lies beside them, as Python lets a script."""

import ast
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from autoslim_cli.errors import UsageError


class OwnFiles:
    """The files of one recipe that were imported, and their directories, into which Python looks last."""

    def __init__(self) -> None:
        self.recipe = Path()
        self.directories: set[Path] = set()
        self.added: list[str] = []
        self.others: set[str] = set()
        self.held: dict[Path, bytes] = {}

    def load(self, path: Path, recipe: Path, named: str) -> ModuleType:
        """Return the module of a file, an absolute path, imported once until it or what it imports changes.

        The modules of another recipe's files make way. Raises UsageError, beginning with `named`, if something that
        lies beside the file has the name of what is imported from elsewhere.
        """
        if recipe != self.recipe or any(_held(file) != held for file, held in self.held.items()):
            self._make_way()
            self.recipe, self.others = recipe, set(sys.modules)
        directory = path.parent
        self.directories.add(directory)
        if all(Path(place).resolve() != directory for place in sys.path):
            sys.path.append(str(directory))
            self.added.append(str(directory))
        importlib.invalidate_caches()  # a file may have been written just now
        files = files_of([path], directory, directory)
        for top in {file.relative_to(directory).parts[0] for file in files if file != path}:
            _refuse_other(top, directory, named)
        self.held |= {file: _held(file) for file in files}
        return _module(path)

    def has(self, name: str) -> bool:
        """Tell whether a module is one of these files, or what lies beside them."""
        top = sys.modules.get(name.partition(".")[0])
        return top is not None and top.__name__ not in self.others and place_of(top.__spec__) in self.directories

    def _make_way(self) -> None:
        """Forget the modules, and let Python look into their directories no longer."""
        for name in [name for name in sys.modules if self.has(name)]:
            del sys.modules[name]
        for directory in self.added:
            with suppress(ValueError):
                sys.path.remove(directory)
        self.directories, self.added, self.held = set(), [], {}


def files_of(files: Iterable[Path], root: Path, within: Path) -> list[Path]:
    """Return files and those that their code imports, wherever in it and directly or not, in the order of their paths.

    `root` is the directory where imports are looked up; only what lies `within` one below it counts, or it itself.
    """
    found, waiting = set[Path](), list(files)
    while waiting:
        if (file := waiting.pop()) in found or not file.is_file():
            continue
        found.add(file)
        for place in _imported(file, root):
            for path in (place, *place.parents):
                if path != root and path.is_relative_to(within):
                    waiting += path.with_name(f"{path.name}.py"), path / "__init__.py"
    return sorted(found)


def _imported(file: Path, root: Path) -> Iterator[Path]:
    """Yield where what a file imports would lie, without endings, were all of it below one directory."""
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError):  # a compiled module, or nothing that could be imported
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield root.joinpath(*name.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            place = [root, *file.parents][min(node.level, len(file.parents))].joinpath(*(node.module or "").split("."))
            yield place
            for name in node.names:
                yield place / name.name


def _module(path: Path) -> ModuleType:
    """Return the module of a file: of its own name where that is free, so that files beside it get the same one."""
    spec = _found(path.stem)
    if spec is not None and spec.origin and Path(spec.origin).resolve() == path:
        return importlib.import_module(path.stem)
    name = f"autoslim_own_{path.stem}"
    known = sys.modules.get(name)
    if known is not None and known.__file__ == str(path):
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # where data classes and pickle look
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _refuse_other(name: str, directory: Path, named: str) -> None:
    """Raise UsageError if a file or package of a directory is not what Python imports by its name."""
    top = name.removesuffix(".py")
    spec = _found(top)
    is_module = name != top or (directory / name / "__init__.py").is_file()
    if spec is not None and is_module and place_of(spec) != directory:
        raise UsageError(
            f"{named}: {top} is imported from {spec.origin or 'Python itself'}, not from beside it: give {name} in "
            f"{directory} another name"
        )


def _found(name: str) -> ModuleSpec | None:
    """Return what Python would import by a name without dots, if anything."""
    with suppress(ImportError, ValueError):  # what is loaded may not say where it came from
        return importlib.util.find_spec(name)
    return None


def place_of(spec: ModuleSpec | None) -> Path | None:
    """Return the directory that a module was found in, or a package's directory lies in."""
    if spec is None:
        return None
    if spec.submodule_search_locations is not None:
        return next((Path(place).resolve().parent for place in spec.submodule_search_locations), None)
    return Path(spec.origin).resolve().parent if spec.origin and spec.has_location else None


def _held(file: Path) -> bytes:
    """Return what a file holds, nothing if it is gone."""
    return file.read_bytes() if file.is_file() else b""
