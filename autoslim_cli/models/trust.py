"""Decide whose code a file may have called: what comes from somebody else must not choose that."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from autoslim_cli.errors import UsageError
from autoslim_cli.models.zoo import build, is_known
from autoslim_cli.recipe.catalogue import recipe_of
from autoslim_cli.recipe.loading import load_recipe
from autoslim_cli.recipe.schema import ModelSettings

LONG = 200
"""Characters of a call that a person still reads."""


@dataclass(frozen=True)
class Trust:
    """Say which factories files may name beside built-in networks, torchvision's and timm's: a recipe's, or any.

    `model` is that of the recipe in use, and `directory` where its `./net.py` is looked up: by default beside the file.
    """

    model: ModelSettings | None = None
    directory: Path | None = None
    anything: bool = False

    @classmethod
    def in_recipe_of(cls, path: Path, *, anything: bool = False) -> "Trust":
        """Trust the recipe that a file lies in, if it lies in one that is sound."""
        directory = recipe_of(path)
        if directory is None:
            return cls(anything=anything)
        with suppress(UsageError):
            return cls(load_recipe(directory).model, directory, anything)
        return cls(directory=directory, anything=anything)


def build_named_by(path: Path, model: ModelSettings, trust: Trust) -> nn.Module:
    """Build the network that a file names, newly initialised. Raises UsageError for code that is not trusted."""
    refuse_untrusted(path, model, trust)
    return build(model, trust.directory or path.parent)


def refuse_untrusted(path: Path, model: ModelSettings, trust: Trust) -> None:
    """Raise UsageError, saying what would have been called, unless a file's factory is known or trusted.

    The recipe in use must call the very same factory with the same arguments: `os:system` is one, too.
    """
    if is_known(model.name) or trust.anything:
        return
    recipe = trust.model
    if recipe is not None and (recipe.name, recipe.args) == (model.name, model.args):
        return
    if recipe is None:
        why = "no recipe in use names it"
    elif recipe.name != model.name:
        why = f"the recipe in use names {_printable(recipe.name)}"
    else:
        why = "the recipe in use gives other arguments"
    raise UsageError(
        f"{path} would call {_call(model, trust.directory or path.parent)}, and {why}: read that code, then add "
        "--trust (in Python: trust=True) if it may run"
    )


def _call(model: ModelSettings, directory: Path) -> str:
    """Write the call that builds a network, of a long one the beginning."""
    place, _, factory = model.name.rpartition(":")
    name = f"{directory / place}:{factory}" if place.endswith(".py") else model.name
    arguments = [f"{key}={value!r}" for key, value in model.args.items()]
    text = _printable(f"{name}({', '.join([*arguments, f'num_classes={model.classes}'])})")
    return text if len(text) <= LONG else f"{text[:LONG]}..."


def _printable(text: str) -> str:
    """Escape what a terminal would obey."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
