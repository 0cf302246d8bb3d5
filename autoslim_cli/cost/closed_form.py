"""Compute FLOPs and parameters from the layer table: exact, and microseconds each."""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from autoslim_cli.network.table import Channels, LayerTable, Layout
from autoslim_cli.slimming.space import Space


def flops(table: LayerTable, channels: Channels) -> int:
    """Return the multiply-adds of convolutions and linear layers for one image."""
    return sum(row.flops(channels) for row in table.rows)


def params(table: LayerTable, channels: Channels) -> int:
    """Return the number of weights and biases."""
    return table.other_params + sum(row.params(channels) for row in table.rows)


def on_arrays(table: LayerTable) -> tuple[Callable[[Channels], int], Callable[[Channels], int]]:
    """Return `flops` and `params` of a table as functions that compute all rows at once: a search asks for very many.

    Rows are those of `LayerRow`: features are sums of counts, a matrix product; the rest is elementwise.
    """
    rows, places = table.rows, {unit.name: place for place, unit in enumerate(table.units)}

    def features(layouts: Iterable[Layout]) -> NDArray[np.float64]:  # exact: whole numbers far below 2^53
        matrix = np.zeros((len(rows), len(places) + 1))  # the last column is of fixed features
        for number, layout in enumerate(layouts):
            for segment in layout:
                if segment.unit is None:
                    matrix[number, -1] += segment.base
                else:
                    matrix[number, places[segment.unit]] += segment.multiplicity
        return matrix

    def column(values: Iterable[int]) -> NDArray[np.int64]:
        return np.fromiter(values, np.int64, len(rows))

    inputs, outputs = features(row.inputs for row in rows), features(row.outputs for row in rows)
    kernel, positions = column(row.kernel for row in rows), column(row.positions * row.multiplies for row in rows)
    groups, group_inputs = column(row.groups for row in rows), column(row.group_inputs for row in rows)
    multiplies, weight = column(row.multiplies for row in rows) > 0, column(row.weight for row in rows)
    others = column(row.bias + row.extra for row in rows)

    def sizes(channels: Channels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return every row's fan-in and outputs."""
        counts = np.array([*(channels[name] for name in places), 1], np.float64)
        read, made = (inputs @ counts).astype(np.int64), (outputs @ counts).astype(np.int64)
        per_group = np.where(group_inputs > 0, group_inputs, read // groups)
        return np.where(multiplies, kernel * per_group, 1), made

    def flops_of(channels: Channels) -> int:
        fan_in, made = sizes(channels)
        return int((positions * fan_in * made).sum())

    def params_of(channels: Channels) -> int:
        fan_in, made = sizes(channels)
        return table.other_params + int((made * (weight * fan_in + others)).sum())

    return flops_of, params_of


def widest_uniform(
    space: Space, cost: Callable[[Channels], float], fits: Callable[[Channels], bool]
) -> tuple[float, dict[str, int]] | None:
    """Return the largest width that fits, and its channels; None if no width does. `cost` settles ties.

    Widths are tried from the largest down, not bisected: latency need not rise with them. The base network's counts,
    which may be at no other width, are tried as they are if the space holds them.
    """
    base = space.uniform(1.0)
    base_fits = all(unit.smallest <= base[name] <= unit.largest for name, unit in space.units.items()) and fits(base)
    for width in sorted({*space.widths, 0.0} - {1.0} | ({1.0} if base_fits else set()), reverse=True):
        channels = space.uniform(width)
        if fits(channels):
            return (1.0, base) if base_fits and cost(channels) < cost(base) else (width, channels)
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
