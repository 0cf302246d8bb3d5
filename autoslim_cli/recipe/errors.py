"""Turn what a schema refuses into one line that a person can act on."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

LONG = 100
"""Characters of a value that a person still reads."""


def explain(error: ValidationError, schema: type[BaseModel]) -> str:
    """Turn pydantic's first complaint into one line: key, value, and the nearest known key."""
    first, *others = error.errors()
    key = ".".join(" ".join(str(part).split())[:LONG] for part in first["loc"]) or "(whole)"
    if first["type"] == "extra_forbidden":
        known = list(fields_at(schema, first["loc"][:-1]))
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.0)
        hint = f"did you mean {near[0]}?" if near else ""
        text = f"unknown key {key}; {hint} known here: {', '.join(known)}"
    elif first["type"] == "missing":
        text = f"{key} is missing"
    else:
        text = f"{key}: {first['msg'].removeprefix('Value error, ')}, not {_shortened(first['input'])}"
    return text + (f" (and {len(others)} more)" if others else "")


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
