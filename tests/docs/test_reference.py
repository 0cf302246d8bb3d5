"""Pages that are written from the code are current, and what is written by hand about files is what the files hold."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from autoslim_cli.recipe import catalogue
from autoslim_cli.recipe.schema import Recipe

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.mark.parametrize("script", ["commands.py", "reference.py", pytest.param("scale.py", marks=pytest.mark.slow)])
def test_generated_pages_are_current(script):
    done = subprocess.run(
        [sys.executable, f"scripts/{script}", "--check"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_recipe_key_says_what_it_means():
    schema = Recipe.model_json_schema()
    keys = [(name, key, field) for name, part in schema["$defs"].items() for key, field in part["properties"].items()]
    silent = [f"{name}.{key}" for name, key, field in keys if "$ref" not in field and not field.get("description")]
    assert not silent


def test_every_shipped_recipe_has_its_rows():
    """What it is, and what it takes: `python scripts/estimate.py --markdown`."""
    what, takes = (DOCS / "recipes.md").read_text().split("## What a recipe takes")
    for page in (what, takes):
        assert sorted(re.findall(r"(?m)^\| `([\w-]+)`(?: \(default\))? \| ", page)) == sorted(catalogue.shipped())


def documented(name):
    """The rows of a table that docs/file-formats.md marks: the names in the row's first cells, and all of its names."""
    page = (DOCS / "file-formats.md").read_text()
    (found,) = re.findall(rf"(?s)<!-- keys: {re.escape(name)} -->\n(.*?)<!-- end -->", page)
    rows = [line.strip("| ").split(" | ", 2) for line in found.splitlines()[2:]]
    return [(re.findall(r"`(\w+)`", " ".join(row[:-1])), set(re.findall(r"`(\w+)`", " ".join(row)))) for row in rows]


def test_the_keys_of_metrics_are_documented(worked):
    known = {key for keys, _ in documented("metrics.jsonl") for key in keys}
    lines = [line for path in worked.glob("*.metrics.jsonl") for line in path.read_text().splitlines()]
    assert {key for line in lines for key in json.loads(line)} == known


def test_the_lines_of_a_search_log_are_documented(worked):
    by_mark = {marks[0]: names for marks, names in documented("search.jsonl")}
    rows = [json.loads(line) for line in (worked / "search.jsonl").read_text().splitlines()]
    seen = set()
    for row in rows[1:]:
        (mark,) = (mark for mark in by_mark if mark in row)
        seen.add(mark)
        if mark in ("scored", "step"):
            assert row.keys() <= by_mark[mark] | {"flops", "params"}, row.keys() - by_mark[mark]
    assert {"run", "scored", "step", "answer"} <= seen
    assert "format" in rows[0]
