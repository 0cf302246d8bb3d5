"""Turn what a schema refuses into one line that a person can act on."""

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from autoslim_cli.near import hint, listed, near

LONG = 100
"""Characters of a value that a person still reads."""
_TYPE = re.compile(r"constrained-\w+|(function-\w+|dict|tuple)\[.*\]")
"""What pydantic puts into a location to say which of several types it tried."""


def explain(error: ValidationError, schema: type[BaseModel]) -> str:
    """Turn pydantic's complaints into one line: all unknown keys with the nearest known ones, or the first fault.

    What is missing is told after what is unknown: it is often there under a wrong name.
    """
    first, *others = complaints(error)
    key = _key(first)
    if first["type"] == "extra_forbidden":
        unknown = [fault for fault in (first, *others) if fault["type"] == "extra_forbidden"]
        missing = [fault for fault in others if fault["type"] == "missing"]
        others = others[len(unknown) + len(missing) - 1 :]
        known = list(fields_at(schema, first["loc"][:-1]))
        meant = "".join(f"did you mean {name}? " for name in near(_last(first), known))
        there = f"known here: {', '.join(known)}" if known else "nothing is known here"
        text = f"unknown key {key}; {meant}{there}"
        if len(unknown) > 1:
            hints = (hint(_last(fault), list(fields_at(schema, fault["loc"][:-1]))) for fault in unknown)
            pairs = [f"{_key(fault)} ({words})" for fault, words in zip(unknown, hints, strict=True)]
            text = f"unknown keys {listed(pairs)}"
        text += f"; missing: {listed(list(map(_key, missing)))}" if missing else ""
    elif first["type"] == "missing":
        text = f"{key} is missing"
    else:
        text = first["msg"].removeprefix("Value error, ")
        if first["loc"]:  # of a whole recipe no value is shown
            text = f"{key}: {text}, not {_shortened(first['input'])}"
    return text + (f" (and {len(others)} more)" if others else "")


def complaints(error: ValidationError) -> list[ErrorDetails]:
    """Return pydantic's complaints: unknown keys first, missing ones next, then the others.

    Of those of a value that may be of several types, the one that goes furthest into it: that type was meant.
    """
    deepest: dict[tuple[int | str, ...], ErrorDetails] = {}
    for fault in error.errors():
        keys = tuple(part for part in fault["loc"] if not _TYPE.fullmatch(str(part)))
        value = tuple(itertools.takewhile(lambda part: not _TYPE.fullmatch(str(part)), fault["loc"]))
        if value not in deepest or len(keys) > len(deepest[value]["loc"]):
            deepest[value] = {**fault, "loc": keys}
    order = {"extra_forbidden": 0, "missing": 1}
    return sorted(deepest.values(), key=lambda fault: order.get(fault["type"], 2))


def _key(fault: ErrorDetails) -> str:
    """Return the dotted key that a complaint is about."""
    return ".".join(" ".join(str(part).split())[:LONG] for part in fault["loc"]) or "(whole)"


def _last(fault: ErrorDetails) -> str:
    """Return the key that a complaint is about, without the section that it stands in."""
    return str(fault["loc"][-1])


def _shortened(value: object) -> str:
    """Write a value, of a long one the beginning."""
    text = repr(value)
    return text if len(text) <= LONG else f"{text[:LONG]}..."


def fields_at(schema: type[BaseModel], location: Iterable[int | str]) -> Mapping[str, Any]:
    """Return the fields of the section that a location leads to."""
    for part in location:
        field = schema.model_fields.get(str(part))
        if field is None:
            return {}
        section = next(
            (
                t
                for t in (field.annotation, *get_args(field.annotation))
                if isinstance(t, type) and issubclass(t, BaseModel)
            ),
            None,
        )
        if section is None:
            return {}
        schema = section
    return schema.model_fields
