"""Set single values of a recipe from the command line: `train.epochs=2`."""

from typing import Any

import yaml

from autoslim_cli.errors import UsageError


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one dotted key of a recipe's raw values.

    Raises UsageError if it is not key=value, or leads through a value.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UsageError(f"{override!r} is not an override: write key=value, for example train.epochs=2")
    *sections, last = key.split(".")
    at = values
    for section in sections:
        inner = at.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UsageError(f"{override!r}: {section} is a value, not a section")
        at = inner
    try:
        at[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        at[last] = text


def touches(override: str, location: tuple[str, ...]) -> bool:
    """Tell whether an override set what a location names, or something in it."""
    key = tuple(override.partition("=")[0].split("."))
    return bool(location) and key[: len(location)] == location[: len(key)]
