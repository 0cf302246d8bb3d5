"""Say what images a network learned from, and refuse those of which its outputs would mean something else."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autoslim_cli.errors import ArtifactError
from autoslim_cli.files.facts import LearnedFrom
from autoslim_cli.recipe.commands import command
from autoslim_cli.recipe.schema import DATA, Recipe

MOST_NAMES = 2**15
MOST_LETTERS = 2**20
"""Class names that a file keeps, and how long they may be together: those of all data sets that people train on."""
_SHOWN = 8


def kept_names(names: Iterable[str]) -> list[str]:
    """Return class names as files keep them: none of too many; letters with accents in one of the ways to write them.

    What is no text, as a directory's name may be, is escaped.
    """
    texts = [name.encode("utf-8", "backslashreplace").decode() for name in names]
    texts = [unicodedata.normalize("NFC", text) for text in texts]
    return texts if len(texts) <= MOST_NAMES and sum(map(len, texts)) <= MOST_LETTERS else []


def shortened(names: Sequence[str]) -> str:
    """Name the first of some classes and the last, for a person."""
    if len(names) <= _SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[: _SHOWN - 1])}, ... {names[-1]}"


def learned_from(facts: Mapping[str, Any]) -> LearnedFrom | None:
    """Return what a checkpoint says of the images that its network learned from.

    Of one that an earlier version wrote, what its recipe said of built-in data; None where nothing is known.
    """
    if facts.get("learned_from") is not None:
        return LearnedFrom.model_validate(facts["learned_from"])
    recipe = facts.get("made_from", {}).get("recipe", {})
    data = Recipe.decisive(recipe).get("data", {})
    if data.get("name") not in DATA or not {"mean", "std"} <= data.keys():
        return None
    with suppress(ValidationError):  # of values that no recipe says
        return LearnedFrom(mean=data["mean"], std=data["std"])
    return None


def difference_of_classes(then: Sequence[str], now: Sequence[str]) -> str:
    """Say the first class in which two lists of names differ: nothing if they do not, or one of them is not known."""
    if not then or not now or list(then) == list(now):
        return ""
    place = next((n for n, (one, other) in enumerate(zip(then, now, strict=False)) if one != other), None)
    if place is None:
        place = min(len(then), len(now))
    was, is_ = (repr(names[place]) if place < len(names) else "none" for names in (then, now))
    order = ", and the names are the same in another order" if sorted(then) == sorted(now) else ""
    return f"class {place} was {was}, is {is_}{order}"


def refuse_unsuited(path: Path, facts: Mapping[str, Any], now: LearnedFrom) -> None:
    """Raise ArtifactError if what a network learned from are not images as they are `now`.

    They may be normalised otherwise, or of classes of other names or in another order. What is not known of either, as
    how a data set of one's own normalises what it gives, is not held against it.
    """
    learned = learned_from(facts) or LearnedFrom()
    for key, then, values in (("mean", learned.mean, now.mean), ("std", learned.std, now.std)):
        if then is not None and values is not None and then != values:
            raise ArtifactError(
                f"{path}: trained on images of data.{key}={then}, but it is {values} now: what it gives for "
                f"images normalised otherwise says nothing; restore data.{key}"
            )
    if why := difference_of_classes(learned.class_names, now.class_names):
        raise ArtifactError(
            f"{path}: learned other classes than those of these images ({why}): its outputs would be counted as other "
            f"classes; give the images the names and the order that it learned (`{command('info', path)}` shows them)"
        )


def difference_of_holdouts(facts: Mapping[str, Any], recipe: Recipe) -> str:
    """Say why the holdout of a checkpoint's recipe was another one than that of a recipe: nothing if it was not."""
    then, now = facts["made_from"]["recipe"], recipe.sections("data")["data"]
    data = then.get("data", {})
    keys = [("seed", then.get("seed"), recipe.seed)]
    keys += [(f"data.{k}", data.get(k), now[k]) for k in ("name", "limit", "holdout")]
    return next((f"{key}={before}, but it is {after} now" for key, before, after in keys if before != after), "")


def refuse_other_images(
    path: Path, facts: Mapping[str, Any], recipe: Recipe, images: str, again: str, *, same_holdout: bool = True
) -> None:
    """Raise ArtifactError if a recipe's holdout would hold images that a checkpoint of it was trained on.

    `images` is the digest of the training images as they are, and `again` the command that trains it anew. Where
    nothing is scored on the holdout (not `same_holdout`), it is enough that the images are the same.
    """
    if same_holdout and (why := difference_of_holdouts(facts, recipe)):
        raise ArtifactError(
            f"{path}: trained with {why}: the holdout would hold images that it was trained on; "
            f"restore {why.partition('=')[0]}, or train again with `{again}`"
        )
    if facts["made_from"]["contents"]["images"] != images:
        raise ArtifactError(
            f"{path}: trained with other images than {recipe.data.path or recipe.data.name} holds now: the holdout "
            f"would hold images that it was trained on; restore them, or train again with `{again}`"
        )
