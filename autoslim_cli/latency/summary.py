"""Summarise a latency table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

from autoslim_cli.latency.pieces import Piece
from autoslim_cli.latency.predictor import predictor
from autoslim_cli.latency.table import Check, LatencyTable
from autoslim_cli.slimming.space import Space


class Limits(NamedTuple):
    """What a check must show: at least this rank correlation, and at most this median error."""

    rank_correlation: float
    median_error: float

    def hold(self, check: Check) -> bool:
        """Tell whether a check shows it, to the digits in which both are told."""
        rank, error = round(check.rank_correlation, 2), round(check.median_error, 2)
        return rank >= self.rank_correlation and error <= self.median_error


WELL, ROUGHLY = Limits(0.9, 0.1), Limits(0.75, 0.2)

FEWEST = 8
"""Networks of a check: of two the rank correlation is 1 or -1, whatever a table is worth."""

UNSTEADY = 0.1
"""Median difference of two measurements of a network, from which on it is the device that cannot be predicted."""


class Verdict(NamedTuple):
    """How well a table predicts networks that it was not fitted on, and that in words with what to do about it."""

    predicts: Literal["well", "roughly", "badly", "unchecked"]
    words: str


def verdict(check: Check | None) -> Verdict:
    """Judge a table by its check."""
    if check is None:
        return Verdict("unchecked", "unchecked: no whole networks were timed, so nobody knows how well it predicts")
    if check.networks < FEWEST:
        return Verdict(
            "unchecked",
            f"as good as unchecked: {check.networks} whole networks are too few to rank; a suite has 20 by default, of "
            "which half check",
        )
    shown = (
        f"rank correlation {check.rank_correlation:.2f} and median error {check.median_error:.0%} on "
        f"{check.networks} other networks"
    )
    if WELL.hold(check):
        return Verdict("well", f"predicts well: {shown}")
    if ROUGHLY.hold(check):
        return Verdict("roughly", f"predicts roughly: {shown}; leave room in a budget, and measure what is found")
    unsteady = check.repeatability is not None and check.repeatability > UNSTEADY
    advice = (
        f"the device repeats itself to {check.repeatability:.0%} only: profile again while nothing else runs on it"
        if unsteady
        else "a search by --flops with several budgets, each network measured, is the safer way"
    )
    return Verdict("badly", f"predicts badly: {shown}; {advice}")


class Summary(TypedDict):
    """What a person asks of a table.

    Its path, device, correction and check as they are in the file, and the verdict on it; how many layer shapes
    and measured points it has; the predicted milliseconds of the smallest and the largest network of the search space,
    and of the base network.
    """

    path: str
    device: dict[str, Any]
    shapes: int
    points: int
    correction: dict[str, Any]
    check: dict[str, Any] | None
    predicts: Literal["well", "roughly", "badly", "unchecked"]
    verdict: str
    range_ms: tuple[float, float]
    base_ms: float


def summary(path: Path, table: LatencyTable, pieces: Sequence[Piece], space: Space) -> Summary:
    """Return what is told of a table. Raises ArtifactError if it lacks layer shapes or counts of the search space."""
    latency = predictor(table, pieces, *space.ends, str(path))
    judged = verdict(table.check)
    return {
        "path": str(path),
        "device": table.device.model_dump(exclude_none=True),
        "shapes": len(table.layers),
        "points": sum(len(layer.ms) for layer in table.layers),
        "correction": table.correction.model_dump(),
        "check": table.check.model_dump() if table.check else None,
        "predicts": judged.predicts,
        "verdict": judged.words,
        "range_ms": (latency(space.smallest), latency(space.largest)),
        "base_ms": latency(space.uniform(1)),
    }
