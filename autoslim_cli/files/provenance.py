"""Record what an artifact is made from, and tell whether it still is what that would make."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from autoslim_cli.errors import ArtifactError, UsageError
from autoslim_cli.files.atomic import sha256
from autoslim_cli.files.channel_config import config_sha256
from autoslim_cli.files.checkpoint import read_facts, versions
from autoslim_cli.recipe.schema import Recipe


def made_from(recipe: Recipe, *sections: str, parents: Iterable[Path] = ()) -> dict[str, Any]:
    """Return what an artifact records of its origin: sections of the recipe, its parents' sha256, versions."""
    return {
        "recipe": {"seed": recipe.seed, **recipe.sections("model", *sections)},
        "parents": {path.name: config_sha256(path) if path.suffix == ".json" else sha256(path) for path in parents},
        "versions": versions(),
    }


def current_facts(
    path: Path, format_name: str, origin: dict[str, Any], channels: dict[str, int]
) -> dict[str, Any] | None:
    """Return a checkpoint's facts if it was made from this recipe, these parents and these channels, else None."""
    try:
        facts = read_facts(path, format_name, "")
    except ArtifactError:
        return None
    held = facts.get("channels") or facts.get("config", {}).get("channels")
    return facts if same_origin(facts.get("made_from", {}), origin) and held == channels else None


def same_origin(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether two records of origin lead to the same result: the same decisive settings, parents and channels."""
    return decisive(one) == decisive(other)


def decisive(origin: dict[str, Any]) -> dict[str, Any]:
    """Return what of a record of origin decides the result: not versions, nor where or how fast work is done."""
    kept = {key: value for key, value in origin.items() if key != "versions"}
    return {**kept, "recipe": Recipe.decisive(origin.get("recipe", {}))}


def refuse_to_lose(state: Path) -> None:
    """Raise UsageError if a stopped training left a state: starting anew would overwrite hours of work."""
    if state.exists():
        raise UsageError(f"{state} holds a stopped training: add --resume to continue it, or remove it to start anew")
