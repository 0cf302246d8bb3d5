"""Hold what a network reached on some images."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy and top-1 accuracy (a fraction) over some images."""

    loss: float
    top1: float
