"""Read a recipe from its file and the overrides of one command."""

from collections.abc import Iterable
from pathlib import Path

import yaml
from pydantic import ValidationError

from autoslim_cli.errors import UsageError
from autoslim_cli.recipe.errors import complaints, explain
from autoslim_cli.recipe.overrides import apply_override, touches
from autoslim_cli.recipe.plain_yaml import LONGEST, read_yaml
from autoslim_cli.recipe.schema import Recipe

RECIPE_FILE = "recipe.yaml"


def load_recipe(directory: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read `recipe.yaml` in `directory` and apply `key=value` overrides.

    Raises UsageError naming the file or the override, the key, and the nearest known key where one is unknown.
    """
    path = directory / RECIPE_FILE
    try:
        with path.open(encoding="utf-8") as file:
            values = read_yaml(file.read(LONGEST + 1))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such recipe; `autoslim recipes list` names the shipped ones") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or more than a recipe holds
        raise UsageError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: a recipe is a mapping of sections (model, data, train, ...)")
    given = list(overrides)
    for override in given:
        apply_override(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        at = tuple(map(str, complaints(error)[0]["loc"]))
        source = next((f"{override!r}" for override in reversed(given) if touches(override, at)), path)
        raise UsageError(f"{source}: {explain(error, Recipe)}") from None
