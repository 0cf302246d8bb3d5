"""Record what an artifact is made from, and tell whether it still is what that would make."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autoslim_cli.errors import ArtifactError, UsageError
from autoslim_cli.files.atomic import sha256
from autoslim_cli.files.channel_config import config_sha256
from autoslim_cli.files.checkpoint import read_facts, versions
from autoslim_cli.files.names import aside, relative
from autoslim_cli.recipe.schema import Recipe


def made_from(
    recipe: Recipe,
    *sections: str,
    contents: Mapping[str, str],
    directory: Path,
    parents: Iterable[Path] = (),
) -> dict[str, Any]:
    """Return what an artifact records of its origin: recipe, what its names stand for, parents' sha256, versions.

    `contents` holds digests of the network, the images, the weights: a name in a recipe does not say what it names.
    Parents go by their names, several of one name by their paths from the recipe's `directory`.
    """
    return {
        "recipe": {"seed": recipe.seed, **recipe.sections("model", "task", *sections)},
        "contents": dict(contents),
        "parents": {
            name: config_sha256(path) if path.suffix == ".json" else sha256(path)
            for name, path in _named(list(parents), directory).items()
        },
        "versions": versions(),
    }


def _named(paths: Sequence[Path], directory: Path) -> dict[str, Path]:
    """Return files by their names, those that share theirs by their paths from a directory."""
    names = Counter(path.name for path in paths)

    def name(path: Path) -> str:
        return path.name if names[path.name] == 1 else Path(relative(path, directory)).as_posix()

    return {name(path): path for path in paths}


def current_facts(
    path: Path, format_name: str, origin: dict[str, Any], channels: dict[str, int], say: Callable[[str], None]
) -> dict[str, Any] | None:
    """Return a checkpoint's facts if it was made from this origin and has these channels, else None.

    `say` is told why one that is there is not current.
    """
    try:
        facts = read_facts(path, format_name, "")
    except ArtifactError as error:
        if path.exists():
            say(f"{path} is not used: {error}")
        return None
    has = facts.get("channels") or facts.get("config", {}).get("channels")
    if why := decisive_difference(facts.get("made_from", {}), origin):
        say(f"{path} is stale: {why}")
        return None
    if has != channels:
        say(f"{path} is stale: it has other channels")
        return None
    return facts


def decisive(origin: dict[str, Any]) -> dict[str, Any]:
    """Return what of a record of origin decides the result: not versions, nor where or how fast work is done.

    Nor which weights a recipe names, where nothing started or learned from them.
    """
    kept = {key: value for key, value in origin.items() if key != "versions"}
    recipe = origin.get("recipe", {})
    if not isinstance(recipe, Mapping):
        return kept
    recipe, model, contents = Recipe.decisive(recipe), recipe.get("model"), origin.get("contents", {})
    if isinstance(model, Mapping) and isinstance(contents, Mapping) and "weights" not in contents:
        recipe["model"] = {key: value for key, value in model.items() if key != "weights"}
    return {**kept, "recipe": recipe}


def decisive_difference(before: object, now: dict[str, Any]) -> str:
    """Say the first value that decides the result in which two records of origin differ; nothing if there is none.

    What was saved is read anew: other versions may have written as two values what is one.
    """
    return difference(decisive(before) if isinstance(before, dict) else before, decisive(now))


def difference(before: object, now: object) -> str:
    """Say the first value in which two records differ; nothing if they do not."""
    found = first_difference(before, now)
    return "{} was {}, is {}".format(*found) if found else ""


def first_difference(one: object, other: object, name: str = "") -> tuple[str, str, str] | None:
    """Return the name of the first value in which two records differ, and both values as people read them."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = dict.fromkeys((*one, *other))
        parts = (first_difference(one.get(key), other.get(key), f"{name}.{key}".lstrip(".")) for key in keys)
        return next(filter(None, parts), None)
    if one == other:
        return None
    return re.sub(r"^(recipe|contents|parents)\.", "", name), _short(one), _short(other)


def _short(value: object) -> str:
    """Write a value; of a digest, or of what fills a line, the beginning."""
    text = str(value)
    if isinstance(value, str) and value.startswith("sha256:"):
        return text[:19]
    return text if len(text) <= 100 else f"{text[:100]}..."


def refuse_another_network(path: Path, facts: dict[str, Any], name: str, now: str, make: str) -> None:
    """Raise ArtifactError if a checkpoint was made with a network of another digest than `now`, under the same name."""
    if facts["made_from"].get("contents", {}).get("network") != now:
        raise ArtifactError(
            f"{path}: made with another network than {name} is now (its code or hyper-parameters have changed); "
            f"restore it, or make one of what it is now with `{make}`"
        )


def refuse_to_lose(state: Path) -> None:
    """Raise UsageError if a stopped training left a state: starting anew would overwrite hours of work."""
    if state.exists():
        raise UsageError(
            f"{state} holds a stopped training: add --resume to continue it, or --force to give it up and start anew"
        )


@contextmanager
def keeping_the_old(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Keep what is there under another name where a file is made anew; one of the same bytes loses nothing."""
    kept = set_aside(path) if path.exists() else None
    yield
    if kept and sha256(kept) == sha256(path):
        kept.unlink()
    elif kept:
        say(f"{path}: the one that was there is kept as {kept.name}")


def set_aside(path: Path) -> Path:
    """Give a file another name, `<stem>.old-1<suffix>` or the next that is free; return it.

    A symbolic link stays, and the file that it leads to gets the other name: what is written next goes there, too.
    """
    path, number = Path(os.path.realpath(path)), 1
    while (kept := aside(path, number)).exists():
        number += 1
    os.replace(path, kept)
    return kept
