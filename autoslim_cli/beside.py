"""Let a file that is named by its path import the files beside it, as Python lets a script."""

import ast
import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType


class Beside:
    """The modules that files imported from beside them, of one directory at a time, and what their files held."""

    def __init__(self) -> None:
        self.directory = Path()
        self.modules: dict[str, ModuleType] = {}
        self.held: dict[Path, bytes] = {}

    @contextmanager
    def importable(self, directory: Path) -> Iterator[None]:
        """Let code import the files of an absolute directory by their names.

        What one file imported another gets as well, until a file changes. Modules of the same names from elsewhere make
        room meanwhile; the standard library's do not.
        """
        if directory != self.directory or any(_held(file) != held for file, held in self.held.items()):
            _take_out(self.modules)
            self.directory, self.modules = directory, {}
        names = {file.stem for file in directory.glob("*.py")} | {file.parent.name for file in directory.glob("*/*.py")}
        known = _named(names - sys.stdlib_module_names)
        others = {name: module for name, module in known.items() if module is not self.modules.get(name)}
        _take_out(known)
        sys.modules.update(self.modules)
        sys.path.insert(0, str(directory))
        importlib.invalidate_caches()  # a file may have been written just now
        try:
            yield
        finally:
            with suppress(ValueError):
                sys.path.remove(str(directory))
            self.modules = {name: one for name, one in _named(names).items() if _lies_in(one, directory)}
            self.held = {file: _held(file) for one in self.modules.values() if (file := _file(one))}
            _take_out(_named({name.partition(".")[0] for name in others}))
            sys.modules.update(others)


def files_of(file: Path, root: Path, within: Path) -> list[Path]:
    """Return a file and those that its code imports, wherever in it and directly or not, in the order of their paths.

    `root` is the directory where imports are looked up; only what lies `within` one below it counts, or it itself.
    """
    found, waiting = set[Path](), [file]
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


def _named(tops: set[str]) -> dict[str, ModuleType]:
    """Return the modules that are loaded of some packages, by their names."""
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in tops}


def _take_out(modules: Mapping[str, ModuleType]) -> None:
    """Let modules be imported anew."""
    for name, module in modules.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]


def _file(module: ModuleType) -> Path | None:
    """Return the file of a module, if it has one."""
    file = getattr(module, "__file__", None)
    return Path(file) if file else None


def _lies_in(module: ModuleType, directory: Path) -> bool:
    """Tell whether a module is of a file below a directory, or a package without code that is."""
    file = _file(module)
    return any(directory in Path(place).parents for place in ([file] if file else getattr(module, "__path__", ())))


def _held(file: Path) -> bytes:
    """Return what a file holds, nothing if it is gone."""
    return file.read_bytes() if file.is_file() else b""
