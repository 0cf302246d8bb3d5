"""Write the reference of recipe keys, file formats and the Python API from the code; `--check` only compares.

python scripts/reference.py [--check]

docs/recipe-keys.md and docs/api.md are written whole; in docs/file-formats.md, which is written by hand, the tables
between `<!-- fields: NAME -->` and `<!-- end -->`.
"""

import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from autoslim_cli.files.channel_config import ChannelConfig, Cost, Found, Holdout, LatencyFacts
from autoslim_cli.files.facts import LearnedFrom, ModelFacts, Origin, SupernetFacts
from autoslim_cli.latency.suite import Suite, SuiteLayer, SuiteNetwork
from autoslim_cli.latency.suite_times import SuiteDevice, SuiteTimes
from autoslim_cli.latency.table import Check, Correction, Device, LatencyTable, LayerTimes, Measured
from autoslim_cli.recipe.schema import Recipe

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "autoslim_cli"

MODELS: dict[str, type[BaseModel]] = {
    model.__name__: model
    for model in (
        *(ChannelConfig, Cost, LatencyFacts, Found, Holdout),
        *(SupernetFacts, ModelFacts, LearnedFrom, Origin),
        *(LatencyTable, Device, LayerTimes, Measured, Correction, Check),
        *(Suite, SuiteLayer, SuiteNetwork, SuiteTimes, SuiteDevice),
    )
}
"""What a marker in docs/file-formats.md may name."""

LIKE = {"retrain": "train", "base": "retrain"}
"""Sections with all keys of another one."""

KEYS_HEAD = """# Recipe keys

Written by `python scripts/reference.py` from the schema that recipes are checked against; do not edit it by hand.
`autoslim recipes schema` prints the schema itself, for editors that complete and check with it, and
`autoslim recipes show NAME` a recipe with every default filled in. A key without a default must be there. Any key can
be set for one command: `autoslim search -r mine search.strategy=exact space.groups=8`. Unknown keys are errors.
"""
API_HEAD = """# Python

Written by `python scripts/reference.py` from the code; do not edit it by hand. This is all that `autoslim_cli`
promises; what lies below it may change. Importing it imports no torch before something is used.
"""


def recipe_keys() -> str:
    """Return one section for each section of a recipe, with a table of its keys."""
    schema = Recipe.model_json_schema()
    definitions = schema["$defs"]
    return "\n\n".join([KEYS_HEAD.rstrip(), *sections("", schema, definitions), ""]).rstrip() + "\n"


def sections(path: str, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[str]:
    """Yield the table of a section's own keys, then those of the sections in it."""
    below = {name: definitions[reference.split("/")[-1]] for name, reference in nested(schema)}
    keys = {name: field for name, field in schema["properties"].items() if name not in below}
    like = LIKE.get(path)
    if like:
        others = definitions[f"{like.title()}Settings"]["properties"]
        keys = {name: field for name, field in keys.items() if field != others.get(name)}
    title = f"`{path}`" if path else "At the top"
    about = cleaned(schema["description"]) if path else "What stands outside of all sections."
    if like:
        about += f"\n\nEvery key of `{like}`, with the same default, and:"
    yield f"## {title}\n\n{about}\n\n{table(keys, schema.get('required', ()), path)}"
    for name, section in below.items():
        yield from sections(f"{path}.{name}" if path else name, section, definitions)


def nested(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the fields of a schema that are sections, with or without being asked for, and what defines each."""
    for name, field in schema["properties"].items():
        for choice in (field, *field.get("anyOf", ())):
            if "$ref" in choice:
                yield name, choice["$ref"]


def table(keys: Mapping[str, Any], required: list[str] | tuple[()], path: str) -> str:
    """Return a table of keys: name, values, default, description."""
    lines = ["| key | values | default | |", "| --- | --- | --- | --- |"]
    for name, field in keys.items():
        default = "" if name in required else spelled(field)
        key = f"{path}.{name}" if path else name
        lines.append(f"| `{key}` | {values(field)} | {default} | {in_a_cell(field.get('description', ''))} |")
    return "\n".join(lines)


def spelled(field: Mapping[str, Any]) -> str:
    """Return a default as a recipe has it; a mapping's, made anew for each recipe, is not in the schema, and empty."""
    value = field.get("default", {})
    return "none" if value is None else f"`{json.dumps(value)}`"


def values(field: Mapping[str, Any]) -> str:
    """Say which values a JSON schema allows."""
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(values(choice) for choice in field["anyOf"] if choice.get("type") != "null"))
    if "const" in field or "enum" in field:
        choices = field.get("enum", [field.get("const")])
        return ", ".join(f"`{c if isinstance(c, str) else json.dumps(c)}`" for c in choices)
    if "$ref" in field:
        name = field["$ref"].split("/")[-1]
        return f"[{name}](#{name.lower()})" if name in MODELS else ELSEWHERE[name]
    kind = field.get("type")
    if kind == "array":
        if "prefixItems" in field:
            items = [values(item) for item in field["prefixItems"]]
            return f"list of {len(items)}: {items[0] if len(set(items)) == 1 else '; '.join(items)}"
        return f"list of {values(field['items'])}" if field.get("items") else "list"
    if kind == "object":
        rest = field.get("additionalProperties")
        return f"mapping to {values(rest)}" if isinstance(rest, Mapping) else "mapping"
    return {"string": "text", "boolean": "`true`, `false`"}.get(str(kind), bounded(field))


ELSEWHERE = {
    "ModelSettings": "as [`model`](recipe-keys.md#model) in a recipe",
    "Metric": "mapping of `name`, `label`, `unit` and `higher_is_better`",
}
"""What is said of fields whose keys another page has, or nobody writes."""


def bounded(field: Mapping[str, Any]) -> str:
    """Say which numbers a JSON schema allows."""
    signs = {"exclusiveMinimum": "> ", "minimum": "≥ ", "exclusiveMaximum": "< ", "maximum": "≤ "}
    bounds = [f"{sign}{field[name]:,}" for name, sign in signs.items() if name in field]
    kind = {"integer": "integer", "number": "number"}.get(str(field.get("type")), "any value")
    return " ".join([kind, ", ".join(bounds)]).rstrip()


def cleaned(text: str) -> str:
    """Return a docstring's paragraphs, each on one line."""
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n"))


def in_a_cell(text: str) -> str:
    """Return a text that does not end a table's cell."""
    return cleaned(text).replace("|", "\\|").replace("\n\n", " ")


def fields(model: type[BaseModel]) -> str:
    """Return the table of a file's fields, from the schema that reads it."""
    schema = model.model_json_schema()
    lines = ["| field | values | | |", "| --- | --- | --- | --- |"]
    for name, field in schema["properties"].items():
        must = "must" if name in schema.get("required", ()) else ""
        lines.append(f"| `{name}` | {values(field)} | {must} | {in_a_cell(field.get('description', ''))} |")
    return "\n".join(lines)


def file_formats() -> str:
    """Return docs/file-formats.md with its tables written anew."""
    page = (DOCS / "file-formats.md").read_text(encoding="utf-8")
    marked = re.compile(r"(?s)<!-- fields: (\w+) -->\n.*?<!-- end -->")
    return marked.sub(lambda m: f"<!-- fields: {m[1]} -->\n{fields(MODELS[m[1]])}\n<!-- end -->", page)


def api() -> str:
    """Return a section for each public name: its signature and docstring as they stand in the source."""
    facade = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    homes = {
        name.name: node.module
        for node in ast.walk(facade)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("autoslim_cli.")
        for name in node.names
    }
    parts = [API_HEAD.rstrip()]
    for name, module in sorted(homes.items(), key=lambda item: item[0].lower()):
        source = (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
        (found,) = (node for node in ast.parse(source).body if getattr(node, "name", None) == name)
        parts += documented(found, source, f"## `{name}`")
    return "\n\n".join(parts) + "\n"


def documented(node: ast.stmt, source: str, title: str) -> Iterator[str]:
    """Yield what a function or a class promises, a function's signature as its source has it."""
    if isinstance(node, ast.FunctionDef):
        lines = source.splitlines(keepends=True)[node.lineno - 1 : node.body[0].lineno - 1]
        signature = textwrap.dedent("".join(lines)).rstrip().removesuffix(":")
        yield from (title, f"```py\n{signature}\n```")
        yield cleaned(ast.get_docstring(node) or "")
    elif isinstance(node, ast.ClassDef):
        yield from (title, cleaned(ast.get_docstring(node) or ""))
        for member in node.body:
            if isinstance(member, ast.FunctionDef) and not member.name.startswith("_") and member.name != "train":
                yield from documented(member, source, f"### `{node.name}.{member.name}`")


def main() -> None:
    """Write the pages, or name those that are stale."""
    pages = {"recipe-keys.md": recipe_keys(), "file-formats.md": file_formats(), "api.md": api()}
    stale = [name for name, text in pages.items() if not current(DOCS / name, text)]
    if "--check" in sys.argv:
        sys.exit(f"docs/{', docs/'.join(stale)}: stale; run python scripts/reference.py" if stale else None)
    for name in stale:
        (DOCS / name).write_text(pages[name], encoding="utf-8")


def current(path: Path, text: str) -> bool:
    """Tell whether a page is what it would be written as."""
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    main()
