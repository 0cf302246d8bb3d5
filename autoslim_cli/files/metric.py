"""Name a score, and say it to people."""

import math
from typing import Annotated

from pydantic import Field, field_validator

from autoslim_cli.recipe.schema import Settings

MOST_LOSS = 1e6
"""Nats beyond which no mean cross-entropy is believed: logits a million apart are those of a network that diverged."""

_TAKEN = ("loss", "flops", "params", "latency", "step", "kind", "budget", "name", "path", "uncalibrated", "metric")


class Metric(Settings):
    """Say what a score is: its key in files, its name for people, its unit, and which way is better.

    Of the unit `%` the value is a fraction; any other unit is written behind it.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    label: Annotated[str, Field(max_length=40)] = ""
    unit: Annotated[str, Field(max_length=10)] = ""
    higher_is_better: bool = True

    @field_validator("name")
    @classmethod
    def _free(cls, name: str) -> str:
        if name in _TAKEN:
            raise ValueError(f"{name} stands for something else in files")
        return name

    @property
    def title(self) -> str:
        """Return what people call it."""
        return self.label or self.name

    def show(self, value: float, digits: int = 2) -> str:
        """Write a value with its unit; of other units than `%` with two digits at least."""
        if self.unit == "%":
            return f"{value:.{digits}%}"
        return f"{value:.{max(digits, 2)}f} {self.unit}".rstrip()

    def can_be(self, loss: float, value: float) -> bool:
        """Tell whether a working network can have this score: a fraction from 0 to 1, a loss that is of some use.

        What the losses of a user's own task come to is not known, but that they are finite. A rate of errors may be
        above 1.
        """
        of_use = 0 <= loss <= MOST_LOSS if self in BUILT_IN else math.isfinite(loss)
        most = 1 if self.unit == "%" and self.higher_is_better else math.inf
        return of_use and math.isfinite(value) and (self.unit != "%" or 0 <= value <= most)


TOP1 = Metric(name="top1", label="top-1", unit="%")
MIOU = Metric(name="miou", label="mIoU", unit="%")
PSNR = Metric(name="psnr", label="PSNR", unit="dB")
F1 = Metric(name="f1", label="F1", unit="%")
AP = Metric(name="ap", label="AP", unit="%")
AP50 = Metric(name="ap50", label="AP50", unit="%")
BUILT_IN = (TOP1, MIOU, PSNR, F1, AP, AP50)
"""Scores of tasks whose losses are never negative."""
