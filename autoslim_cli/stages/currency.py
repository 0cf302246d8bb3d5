"""Tell whether an artifact is still what its recipe and parents would make."""

from pathlib import Path
from typing import Any

from autoslim_cli.errors import ArtifactError, UsageError
from autoslim_cli.files.checkpoint import read_facts


def current_facts(
    path: Path, format_name: str, made_from: dict[str, Any], channels: dict[str, int]
) -> dict[str, Any] | None:
    """Return a checkpoint's facts if it was made from this recipe, these parents and these channels, else None."""
    try:
        facts = read_facts(path, format_name, "")
    except ArtifactError:
        return None
    origin = facts.get("made_from", {})
    same = all(origin.get(key) == made_from[key] for key in ("recipe", "parents"))
    held = facts.get("channels") or facts.get("config", {}).get("channels")
    return facts if same and held == channels else None


def refuse_to_lose(state: Path) -> None:
    """Raise UsageError if a stopped training left a state: starting anew would overwrite hours of work."""
    if state.exists():
        raise UsageError(f"{state} holds a stopped training: add --resume to continue it, or remove it to start anew")
