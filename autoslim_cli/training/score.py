"""Hold what a network reached on some images."""

from dataclasses import dataclass

from autoslim_cli.files.facts import MOST_LOSS


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy and top-1 accuracy (a fraction) over some images."""

    loss: float
    top1: float

    @property
    def possible(self) -> bool:
        """Tell whether a working network can have this score: not if its loss is not finite, or beyond all use."""
        return 0 <= self.loss <= MOST_LOSS and 0 <= self.top1 <= 1
