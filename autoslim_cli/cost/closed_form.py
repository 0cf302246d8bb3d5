"""Compute FLOPs and parameters from the layer table: exact, and microseconds each."""

from collections.abc import Callable

from autoslim_cli.network.space import Space
from autoslim_cli.network.table import Channels, LayerTable


def flops(table: LayerTable, channels: Channels) -> int:
    """Return the multiply-adds of convolutions and linear layers for one image."""
    return sum(row.flops(channels) for row in table.rows)


def params(table: LayerTable, channels: Channels) -> int:
    """Return the number of weights and biases."""
    return table.other_params + sum(row.params(channels) for row in table.rows)


def widest_uniform(
    space: Space, cost: Callable[[Channels], float], fits: Callable[[Channels], bool]
) -> tuple[float, dict[str, int]] | None:
    """Return the largest width that fits, and its channels; None if no width does. `cost` settles ties.

    Counts change at finitely many widths; bisection to 1e-6 finds the last one that fits.
    """
    low, high = 0.0, max(u.largest / u.unit.base for u in space.units.values()) + 1e-6
    if not fits(space.uniform(low)):
        return None
    if fits(space.uniform(high)):
        return high, space.uniform(high)
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if fits(space.uniform(middle)) else (low, middle)
    best = low, space.uniform(low)
    base = space.uniform(1.0)  # the base network's counts need not be on the grid of widths around it
    return (1.0, base) if fits(base) and cost(best[1]) < cost(base) else best
