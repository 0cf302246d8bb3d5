"""Import scripts and modules of benchmarks, which lie in no package."""

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

ROOT = Path(__file__).parents[1]


@contextmanager
def outside(*folders: str, names: Sequence[str]) -> Iterator[SimpleNamespace]:
    """Give modules that lie in some folders of the repository, by name, and forget them after.

    `names` are all that they import of each other: other folders have modules of the same names.
    """
    paths = [str(ROOT / folder) for folder in folders]
    sys.path[:0] = paths
    before = {name: sys.modules.pop(name, None) for name in names}
    try:
        modules: dict[str, ModuleType] = {name: importlib.import_module(name) for name in names}
        yield SimpleNamespace(**modules)
    finally:
        for path in paths:
            sys.path.remove(path)
        for name in names:
            sys.modules.pop(name, None)
            if (module := before[name]) is not None:
                sys.modules[name] = module
