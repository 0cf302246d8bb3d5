"""Tell whether an artifact is still what its recipe and parents would make."""

from pathlib import Path
from typing import Any

from autoslim_cli.errors import ArtifactError, UsageError
from autoslim_cli.files.checkpoint import read_facts
from autoslim_cli.recipe.schema import Recipe


def current_facts(
    path: Path, format_name: str, made_from: dict[str, Any], channels: dict[str, int]
) -> dict[str, Any] | None:
    """Return a checkpoint's facts if it was made from this recipe, these parents and these channels, else None."""
    try:
        facts = read_facts(path, format_name, "")
    except ArtifactError:
        return None
    held = facts.get("channels") or facts.get("config", {}).get("channels")
    return facts if same_origin(facts.get("made_from", {}), made_from) and held == channels else None


def same_origin(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether two records of origin lead to the same result: the same decisive settings, parents and channels."""
    return decisive(one) == decisive(other)


def decisive(made_from: dict[str, Any]) -> dict[str, Any]:
    """Return what of a record of origin decides the result: not versions, nor where or how fast work is done."""
    kept = {key: value for key, value in made_from.items() if key != "versions"}
    return {**kept, "recipe": Recipe.decisive(made_from.get("recipe", {}))}


def refuse_to_lose(state: Path) -> None:
    """Raise UsageError if a stopped training left a state: starting anew would overwrite hours of work."""
    if state.exists():
        raise UsageError(f"{state} holds a stopped training: add --resume to continue it, or remove it to start anew")
