"""Say what the lines of a log must be: a score that cannot be would choose other channels."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(strict=True, gt=0)]
Number = Annotated[int, Field(strict=True, ge=0)]
Figure = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A loss, or a score: which of them can be depends on the metric."""
Seconds = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


class _Row(BaseModel):
    """Base of all; what only people read may stand beside."""

    model_config = ConfigDict(frozen=True)


class ScoringRow(_Row):
    """Scores of candidates, each with the counts that it changes, of the channels `at` on a draw of images."""

    draw: Annotated[int, Field(strict=True, ge=-1)]
    at: list[Count]
    scored: list[tuple[dict[str, Count], Figure, Figure]]
    multiply_adds: Number
    seconds: Seconds


class TrialRow(_Row):
    """The loss of channels after a short training, and what it depended on; the score stands under its name."""

    trial: list[Count]
    of: str
    loss: Figure


class MeasuredRow(_Row):
    """The latency of channels, measured as a table's device is."""

    measured: list[Count]
    table: str
    ms: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]


class DecisionRow(_Row):
    """A step or an answer, and what the network costs and loses there; the score stands under its name."""

    step: Number | None = None
    answer: str | None = None
    flops: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
    loss: Figure


class RunRow(_Row):
    """What decides a run."""

    run: dict[str, Any]
