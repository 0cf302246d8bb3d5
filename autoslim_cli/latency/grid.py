"""Lay out at which channel counts a layer shape is measured: as finely as interpolation needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

from autoslim_cli.latency.axes import Axis, count_along
from autoslim_cli.latency.interpolation import Grid
from autoslim_cli.latency.pieces import Piece
from autoslim_cli.latency.table import LayerTimes
from autoslim_cli.network.table import Channels, Segment
from autoslim_cli.slimming.space import Space

TOLERANCE = 0.05
"""The relative error of interpolation above which a grid is refined."""

LEVELS = 12
"""Candidate counts along an axis whose layout several units share."""


class Timing(NamedTuple):
    """Milliseconds, their relative spread, and the milliseconds that cold weights add."""

    ms: float
    spread: float
    cold_ms: float = 0.0


Clock = Callable[[Sequence[Channels]], list[Timing]]
"""Time a layer shape at some channels, interleaved."""


@dataclass(frozen=True)
class LayerShape:
    """A layer shape: a piece that has it, and the counts that pieces with it may take along each axis, ascending."""

    piece: Piece
    counts: tuple[tuple[int, ...], ...]

    @property
    def text(self) -> str:
        """Return the shape in words: what a table finds its times by."""
        return self.piece.shape


def layer_shapes(pieces: Sequence[Piece], space: Space) -> list[LayerShape]:
    """Return the distinct layer shapes of a space, in the order of the network."""
    pieces_of: dict[str, list[Piece]] = {}
    for piece in pieces:
        pieces_of.setdefault(piece.shape, []).append(piece)
    shapes = []
    for alike in pieces_of.values():
        finest = min(alike, key=lambda piece: _granules(piece, space))  # it can be built at what the others can
        axes = range(len(finest.axes))
        wanted = [sorted({c for piece in alike for c in _wanted_counts(piece.axes[axis], space)}) for axis in axes]
        shapes.append(LayerShape(finest, tuple(_buildable_counts(finest, axis, wanted, space) for axis in axes)))
    return shapes


def _granules(piece: Piece, space: Space) -> list[int]:
    """Return the steps in which a piece's units can be built."""
    return [space.units[unit].unit.granule for units in piece.units for unit in units]


def _wanted_counts(axis: Axis, space: Space) -> list[int]:
    """Return the counts that channels of the space give along an axis; some of them, where several units share it."""
    if len(axis) == 1 and len(axis[0]) == 1:
        (segment,) = axis[0]
        assert segment.unit is not None
        unit = space.units[segment.unit]
        return [count * segment.multiplicity for count in {*unit.counts, unit.unit.base}]
    low, high = (count_along(axis, channels) for channels in space.ends)
    return sorted({round(low + (high - low) * level / (LEVELS - 1)) for level in range(LEVELS)})


def _buildable_counts(piece: Piece, axis: int, wanted: Sequence[Sequence[int]], space: Space) -> tuple[int, ...]:
    """Return the counts along an axis at which a piece can be built: near those wanted, and out to their ends."""

    def built(count: int) -> int:
        point = [counts[0] if number != axis else count for number, counts in enumerate(wanted)]
        return piece.counts(channels_at(piece, point, space))[axis]

    low, high = wanted[axis][0], wanted[axis][-1]
    least = next((b for count in range(low, 0, -1) if (b := built(count)) <= low), low)
    most = next((b for count in range(high, 2 * high + 1) if (b := built(count)) >= high), high)
    inner = {b for count in wanted[axis] if least < (b := built(count)) < most}
    return tuple(sorted({least, most} | {count for count in inner if built(count) == count}))


def channels_at(piece: Piece, counts: Sequence[int], space: Space) -> dict[str, int]:
    """Return channels at which a piece has some counts, or nearly so where several units share an axis."""
    channels = space.uniform(1)
    for axis, count in zip(piece.axes, counts, strict=True):
        channels.update(_shared_out(axis, count, space))
    return channels


def _shared_out(axis: Axis, count: int, space: Space) -> dict[str, int]:
    """Share features out among the units of an axis, as their base counts are to each other."""
    segments = [segment for layout in axis for segment in layout]
    free: list[tuple[str, Segment]] = [(s.unit, s) for s in segments if s.unit is not None]
    left = count - sum(s.base for s in segments if s.unit is None)
    base_left = sum(s.base for _, s in free)
    channels: dict[str, int] = {}
    for unit, segment in free:
        if unit not in channels:
            granule = space.units[unit].unit.granule
            share = left * segment.base / max(base_left, 1) / segment.multiplicity
            channels[unit] = max(granule, round(share / granule) * granule)
        left -= channels[unit] * segment.multiplicity
        base_left -= segment.base
    return channels


@dataclass
class MeasuredGrid:
    """A grid under way: counts along each axis, ascending, and what was measured, by counts."""

    axes: list[list[int]]
    timings: dict[tuple[int, ...], Timing] = field(default_factory=dict)

    def points(self, axis: int | None = None, count: int = 0) -> list[tuple[int, ...]]:
        """Return all points of the grid, row by row, or those of one line across it at a count along an axis."""
        return list(product(*([count] if number == axis else counts for number, counts in enumerate(self.axes))))

    def interpolated(self) -> Grid:
        """Return the grid as it stands."""
        return Grid(tuple(map(tuple, self.axes)), tuple(self.timings[point].ms for point in self.points()))

    def layer_times(self, piece: Piece) -> LayerTimes:
        """Return what a table says of it."""
        timings = [self.timings[point] for point in self.points()]
        return LayerTimes(
            shape=piece.shape,
            example=piece.name,
            counts=self.axes,
            ms=[round(timing.ms, 6) for timing in timings],
            spread=[round(timing.spread, 4) for timing in timings],
            cold_ms=[round(timing.cold_ms, 6) for timing in timings] if piece.multiplies else [],
        )


def refined(shape: LayerShape, space: Space, clock: Clock, tolerance: float = TOLERANCE) -> MeasuredGrid:
    """Measure the ends of every axis, then halve where interpolation errs by more than `tolerance` and the noise.

    The first two halvings are not asked: kernels that work in blocks make stairs, whose middle may lie on the line.
    """

    def measure(points: Sequence[tuple[int, ...]]) -> None:
        new = [point for point in points if point not in grid.timings]
        timings = clock([channels_at(shape.piece, point, space) for point in new])
        grid.timings.update(zip(new, timings, strict=True))

    grid = MeasuredGrid([sorted({counts[0], counts[-1]}) for counts in shape.counts])
    measure(grid.points())
    for axis, counts in enumerate(shape.counts):
        waiting = [(counts[0], counts[-1], 0)]
        while waiting:
            low, high, depth = waiting.pop()
            between = [count for count in counts if low < count < high]
            if not between:
                continue
            middle = min(between, key=lambda count: abs(2 * count - low - high))
            line, before = grid.points(axis, middle), grid.interpolated()
            measure(line)
            grid.axes[axis] = sorted({*grid.axes[axis], middle})
            if depth == 0 or any(_errs(before.at(point), grid.timings[point], tolerance) for point in line):
                waiting += [(low, middle, depth + 1), (middle, high, depth + 1)]
    return grid


def _errs(predicted_ms: float, timing: Timing, tolerance: float) -> bool:
    """Tell whether a prediction is off by more than a tolerance and what the noise explains."""
    return abs(predicted_ms - timing.ms) > max(tolerance, timing.spread) * timing.ms
