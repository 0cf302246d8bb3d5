"""Imports go down the list of layers that docs/code.md draws, never up."""

import ast
import importlib.util
from pathlib import Path

import pytest

import autoslim_cli

LAYERS = (
    "cli",
    "library",
    "stages",
    "report",
    "searching",
    "training",
    "data",
    "latency",
    "cost",
    "slimming",
    "models",
    "network",
    "files",
    "recipe",
)
ROOT = Path(autoslim_cli.__file__).parent
REPOSITORY = Path(__file__).parents[2]
MODULES = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]


def imported(path):
    """Yield every module of the package that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [one.name for one in node.names] if isinstance(node, ast.Import) else []
        yield from (name.split(".") for name in names if name and name.startswith("autoslim_cli."))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_imports_only_from_its_layer_and_below(path):
    own = LAYERS.index(path.relative_to(ROOT).parts[0])
    for _, layer, *_ in imported(path):
        assert layer not in LAYERS[:own]


def test_the_page_on_the_code_draws_the_layers_in_this_order():
    text = (Path(__file__).parents[2] / "docs" / "code.md").read_text(encoding="utf-8")
    places = [text.index(f"\n      {layer}/ ") for layer in LAYERS]
    assert places == sorted(places)


@pytest.mark.parametrize("path", sorted((ROOT / "network" / "rules").glob("*.py")), ids=lambda path: path.stem)
def test_rules_know_nothing_that_changes(path):
    known = {"rules", "facts", "layouts", "table"}
    assert {names[2] for names in imported(path) if names[1] == "network"} <= known


def test_no_module_imports_itself_by_way_of_others():
    from graphlib import CycleError, TopologicalSorter

    names = {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in ROOT.rglob("*.py")}
    names = {name.removesuffix(".__init__") for name in names}
    graph = {}
    for path in ROOT.rglob("*.py"):
        own = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("autoslim_cli."):
                module = node.module.removeprefix("autoslim_cli.")
                submodules = {f"{module}.{one.name}" for one in node.names} & names
                found |= submodules or {module}
        graph[own] = found - {own}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")
    assert len(order) >= len(graph)


OUTSIDE = sorted(path for place in ("benchmarks", "scripts", "tests") for path in (REPOSITORY / place).rglob("*.py"))


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_what_is_imported_from_outside_is_there(path):
    """A stage of a benchmark that is seldom run imported, within a function, what had moved."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "autoslim_cli":
            module = importlib.import_module(node.module)
            for name in (one.name for one in node.names):
                assert hasattr(module, name) or importlib.util.find_spec(f"{node.module}.{name}"), (node.module, name)
