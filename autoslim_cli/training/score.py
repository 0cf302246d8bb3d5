"""Hold what a network reached on some images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoslim_cli.errors import AutoslimError
from autoslim_cli.files.metric import TOP1, Metric


@dataclass(frozen=True)
class Score:
    """A loss, and the value of a metric, over some images."""

    loss: float
    value: float
    metric: Metric = TOP1

    @property
    def possible(self) -> bool:
        """Tell whether a working network can have this score: not if its loss is not finite, or beyond all use."""
        return self.metric.can_be(self.loss, self.value)

    def of_use(self, images: str, section: str) -> "Score":
        """Return the score, on some images, after the training of a section.

        Raises AutoslimError for one that no working network has.
        """
        if not self.possible:
            raise AutoslimError(
                f"the training ended with a loss of {self.loss:g} and {self.metric.title} of {self.value:g} on the "
                f"{images}, which no working network has; lower {section}.lr"
            )
        return self

    @property
    def figures(self) -> dict[str, float]:
        """Return both by name, as files and `--json` have them: `{"loss": 0.61, "top1": 0.8}`."""
        return {"loss": self.loss, self.metric.name: self.value}

    @property
    def text(self) -> str:
        """Return the value as people read it while they wait: `80.1%`."""
        return self.metric.show(self.value, 1)

    def lost(self, before: "Score") -> float:
        """Return by how much the value is worse than another: below zero it is better."""
        return before.value - self.value if self.metric.higher_is_better else self.value - before.value


def measured(images: str, score: Score, beside: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Return what a checkpoint's facts say of a score on some images, as `test`, and what its metric is."""
    return {images: {**score.figures, **(beside or {})}, "metric": score.metric.model_dump(mode="json")}
