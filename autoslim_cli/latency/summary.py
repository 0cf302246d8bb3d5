"""Summarise a latency table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from autoslim_cli.latency.pieces import Piece
from autoslim_cli.latency.predictor import predictor
from autoslim_cli.latency.table import LatencyTable
from autoslim_cli.slimming.space import Space


class Summary(TypedDict):
    """What a person asks of a table.

    Its path, device, correction and check as they are in the file; how many layer shapes and measured points it has;
    the predicted milliseconds of the smallest and the largest network of the search space, and of the base network.
    """

    path: str
    device: dict[str, Any]
    shapes: int
    points: int
    correction: dict[str, Any]
    check: dict[str, Any] | None
    range_ms: tuple[float, float]
    base_ms: float


def summary(path: Path, table: LatencyTable, pieces: Sequence[Piece], space: Space) -> Summary:
    """Return what is told of a table. Raises ArtifactError if it lacks layer shapes or counts of the search space."""
    latency = predictor(table, pieces, *space.ends, str(path))
    return {
        "path": str(path),
        "device": table.device.model_dump(exclude_none=True),
        "shapes": len(table.layers),
        "points": sum(len(layer.ms) for layer in table.layers),
        "correction": table.correction.model_dump(),
        "check": table.check.model_dump() if table.check else None,
        "range_ms": (latency(space.smallest), latency(space.largest)),
        "base_ms": latency(space.uniform(1)),
    }
