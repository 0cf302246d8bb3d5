"""Compute FLOPs and parameters from the layer table: exact, and microseconds each."""

from collections.abc import Callable

from autoslim_cli.network.table import Channels, LayerTable
from autoslim_cli.slimming.space import Space


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

    Widths are tried from the largest down, not bisected: latency need not rise with them.
    """
    for width in sorted({*space.widths, 1.0, 0.0}, reverse=True):  # the base network's counts may be at no other width
        channels = space.uniform(width)
        if fits(channels):
            base = space.uniform(1.0)
            return (1.0, base) if fits(base) and cost(channels) < cost(base) else (width, channels)
    return None


def filled_evenly(space: Space, channels: Channels, fits: Callable[[Channels], bool]) -> dict[str, int]:
    """Return channels with a quantum more wherever one fits, the unit first that is narrowest against its base.

    What makes one width comparable with a search at equal cost, without looking at a score.
    """
    filled = dict(channels)

    def grown(name: str) -> dict[str, int] | None:
        count = space.moved(filled, name, 1)
        larger = None if count is None else {**filled, name: count}
        return larger if larger and fits(larger) else None

    while larger := next(
        filter(None, map(grown, sorted(filled, key=lambda n: filled[n] / space.units[n].unit.base))), None
    ):
        filled = larger
    return filled
