"""Draw the random sub-networks that a supernet trains beside its largest and smallest."""

import math
from collections.abc import Callable
from random import Random

from autoslim_cli.network.table import Channels
from autoslim_cli.slimming.space import Space

SPREAD = 0.5
"""How far units stray from one width: the standard deviation of the logarithm of their share of it."""

HALVINGS = 12
"""Halvings of the range of widths: to a thousandth, finer than any unit's counts."""


def near_budget(space: Space, cost: Callable[[Channels], float], rng: Random, spread: float = SPREAD) -> dict[str, int]:
    """Draw channels that cost about a budget, which is drawn evenly in the logarithm from the least to the most.

    Every unit strays from one width by its own factor exp(N(0, `spread`)); the width is the largest at which the cost
    is within the budget. Channels that are drawn for each unit alone nearly all cost about the mean: a search to a
    tenth of the FLOPs then asks a supernet about networks that it was never trained at.
    """
    low, high = cost(space.smallest), cost(space.largest)
    budget = math.exp(rng.uniform(math.log(low), math.log(high)))
    factors = {name: math.exp(rng.gauss(0.0, spread)) for name in space.units}
    narrow, wide = _widths(space, factors)
    for _ in range(HALVINGS):
        width = math.sqrt(narrow * wide)
        if cost(_at(space, factors, width)) > budget:
            wide = width
        else:
            narrow = width
    return _at(space, factors, narrow)


def _widths(space: Space, factors: dict[str, float]) -> tuple[float, float]:
    """Return a width at which every unit has its smallest count, and one at which every unit has its largest."""
    ends = {name: (unit.smallest, unit.largest, unit.unit.base * factors[name]) for name, unit in space.units.items()}
    return (
        min(smallest / whole for smallest, _, whole in ends.values()),
        max(largest / whole for _, largest, whole in ends.values()),
    )


def _at(space: Space, factors: dict[str, float], width: float) -> dict[str, int]:
    """Return the channels at a width, each unit's times its factor, whole quanta within its counts."""
    channels = {}
    for name, unit in space.units.items():
        count = unit.quantum * math.floor(unit.unit.base * width * factors[name] / unit.quantum + 0.5)
        channels[name] = min(max(count, unit.smallest), unit.largest)
    return channels
