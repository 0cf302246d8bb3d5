"""Read the YAML that people write, and nothing that would take memory or time out of all proportion."""

import re
from typing import Any

import yaml

LONGEST = 2**17
"""Characters that are read, in some seconds: a recipe has a few thousand."""
MOST_VALUES = 10_000
"""Values, each counted as often as an alias or a merge repeats it: nine lines of aliases can stand for 10^9."""
DEEPEST = 32
"""Levels of nesting; what writes JSON stops at some hundred."""
LONGEST_NUMBER = 64
"""Characters of a number. YAML's `1:1:1:...` is one, to the base of 60: it takes seconds, and cannot be printed."""

_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map", "merge")}


_EXPONENT = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")
"""`1e-3` is a number, as in JSON and YAML 1.2; PyYAML's 1.1 wants `1.0e-3`, and reads a text else."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with numbers as people write them."""


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which quotes what the loader would read as a number."""


for _one in (_Loader, _Dumper):
    _one.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def to_yaml(value: Any) -> str:
    """Write values as YAML that `read_yaml` reads as the same."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def read_yaml(text: str) -> Any:
    """Return the mappings, lists, texts, numbers and truth values that YAML says.

    Raises yaml.YAMLError where it is not YAML or holds other things, as dates; ValueError where it is too large.
    """
    if len(text) > LONGEST:
        raise ValueError(f"more than {LONGEST:,} characters")
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        values, levels = _size(node, {})
        if levels > DEEPEST:
            raise ValueError(f"nested deeper than {DEEPEST} levels")
        if values > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES:,} values, once its aliases are written out")
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from None
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Return how many values a node stands for, and how many levels; `known` holds those of nodes that repeat."""
    if id(node) in known:
        if (size := known[id(node)]) is None:
            raise ValueError("a value that holds itself")
        return size
    known[id(node)] = None
    if node.tag not in _TAGS:
        raise yaml.YAMLError(f"{node.tag.rpartition(':')[2]} values have no use here: write text in quotes")
    if isinstance(node, yaml.MappingNode):
        _refuse_twice(node)
    if isinstance(node, yaml.ScalarNode):
        if len(node.value) > LONGEST_NUMBER and node.tag.endswith((":int", ":float")):
            raise ValueError(f"a number of {len(node.value):,} characters")
        parts = []
    else:
        parts = [p for part in node.value for p in (part if isinstance(part, tuple) else (part,))]
    sizes = [_size(part, known) for part in parts]
    known[id(node)] = size = (
        1 + sum(values for values, _ in sizes),
        1 + max((levels for _, levels in sizes), default=0),
    )
    return size


def _refuse_twice(node: yaml.MappingNode) -> None:
    """Raise yaml.YAMLError for a key that a mapping has twice: YAML would take the last, and say nothing."""
    seen: dict[str, int] = {}
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge"):
            line = key.start_mark.line + 1
            if key.value in seen:
                raise yaml.YAMLError(
                    f"{key.value} is there twice (lines {seen[key.value]} and {line}): make one of them"
                )
            seen[key.value] = line
