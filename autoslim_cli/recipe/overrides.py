"""Set single values of a recipe from the command line: `train.epochs=2`."""

from typing import Any

import yaml

from autoslim_cli.errors import UsageError
from autoslim_cli.recipe.plain_yaml import read_yaml


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one dotted key of a recipe's raw values.

    Raises UsageError if it is not key=value, leads through a value, or is beyond all use.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UsageError(f"{override!r} is not an override: write key=value, for example train.epochs=2")
    *sections, last = key.split(".")
    at = values
    for section in sections:
        if at.get(section) is None:  # a section that may be left out is printed as null
            at[section] = {}
        inner = at[section]
        if not isinstance(inner, dict):
            raise UsageError(f"{override!r}: {section} is a value, not a section")
        at = inner
    at[last] = value_of(text, override)


def value_of(text: str, given: str) -> Any:
    """Return the value that the text after a `=` says: YAML, or where it is none, the text itself.

    Raises UsageError quoting what was `given` for one beyond all use.
    """
    try:
        return read_yaml(text)
    except yaml.YAMLError:
        return text
    except ValueError as error:
        raise UsageError(f"{given!r}: {error}") from None


def touches(override: str, location: tuple[str, ...]) -> bool:
    """Tell whether an override set what a location names, or something in it."""
    key = tuple(override.partition("=")[0].split("."))
    return bool(location) and key[: len(location)] == location[: len(key)]
