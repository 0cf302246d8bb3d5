"""Find the channel counts that a piece's latency depends on."""

from collections.abc import Sequence

from autoslim_cli.network.table import Channels, Layout, features

Axis = tuple[Layout, ...]
"""Layouts that are varied together; the axis counts their features."""


def axes_of(layouts: Sequence[Layout]) -> tuple[Axis, ...]:
    """Return the axes of tensors with some layouts, two at most.

    Each layout that units decide is one, or all together where they overlap or are many.
    """
    free = list(dict.fromkeys(layout for layout in layouts if any(s.unit for s in layout)))
    units = [unit for layout in free for unit in {s.unit for s in layout if s.unit}]
    if not free:
        return ()
    return tuple((layout,) for layout in free) if len(free) <= 2 and len(units) == len(set(units)) else (tuple(free),)


def count_along(axis: Axis, channels: Channels) -> int:
    """Return the features along an axis at some channels."""
    return sum(features(layout, channels) for layout in axis)


def units_along(axis: Axis) -> tuple[str, ...]:
    """Return the units that decide an axis, each once."""
    return tuple(dict.fromkeys(s.unit for layout in axis for s in layout if s.unit is not None))
