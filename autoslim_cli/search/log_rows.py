"""Say what the lines of a log must be: a score that cannot be would choose other channels."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from autoslim_cli.files.facts import Loss, Top1

Count = Annotated[int, Field(strict=True, gt=0)]
Number = Annotated[int, Field(strict=True, ge=0)]
Seconds = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


class _Row(BaseModel):
    """Base of all; what only people read may stand beside."""

    model_config = ConfigDict(frozen=True)


class ScoringRow(_Row):
    """Scores of candidates, each with the counts that it changes, of the channels `at` on a draw of images."""

    draw: Annotated[int, Field(strict=True, ge=-1)]
    at: list[Count]
    scored: list[tuple[dict[str, Count], Loss, Top1]]
    multiply_adds: Number
    seconds: Seconds


class TrialRow(_Row):
    """The score of channels after a short training, and what it depended on."""

    trial: list[Count]
    of: str
    loss: Loss
    top1: Top1


class MeasuredRow(_Row):
    """The latency of channels, measured as a table's device is."""

    measured: list[Count]
    table: str
    ms: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]


class DecisionRow(_Row):
    """A step or an answer, and what the network costs and scores there."""

    step: Number | None = None
    answer: str | None = None
    flops: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
    loss: Loss
    top1: Top1


class RunRow(_Row):
    """What decides a run."""

    run: dict[str, Any]
