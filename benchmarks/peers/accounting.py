"""Count the multiply-adds that an arm spends: a training step is three forward passes, forward and backward."""

import math
from collections.abc import Mapping

STEP = 3
"""Forward passes' worth of multiply-adds in a training step: one forward, and two for the backward."""


def training(flops: int, images: int, epochs: int) -> int:
    """Return the multiply-adds of training a network of so many FLOPs."""
    return images * epochs * STEP * flops


def sandwich(largest: int, smallest: int, samples: int, images: int, epochs: int, mean: float | None = None) -> int:
    """Return the multiply-adds of training a supernet by the sandwich rule.

    `mean` is that of its random sub-networks; by default they are drawn evenly in the logarithm of FLOPs.
    """
    if mean is None:
        mean = (largest - smallest) / math.log(largest / smallest)
    return round(images * epochs * STEP * (largest + smallest + (samples - 2) * mean))


def total(parts: Mapping[str, int]) -> int:
    """Return the sum of an arm's parts: base and supernet training, search, final training."""
    return sum(parts.values())


def epochs_for(compute: int, flops: int, images: int) -> int:
    """Return the epochs of training a network that spend at least so many multiply-adds."""
    return max(1, math.ceil(compute / training(flops, images, 1)))
