"""Lay out at which channel counts a layer shape is measured: as finely as interpolation needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

from autoslim_cli.latency.predictor import Grid
from autoslim_cli.latency.table import LayerTimes
from autoslim_cli.network.pieces import Axis, Piece
from autoslim_cli.network.table import Channels
from autoslim_cli.slimming.space import Space

TOLERANCE = 0.05
"""The relative error of interpolation above which a grid is refined."""

LEVELS = 12
"""Candidate counts along an axis whose layout several units share."""


class Times(NamedTuple):
    """Milliseconds, their relative spread, and the milliseconds that cold weights add."""

    ms: float
    spread: float
    cold: float = 0.0


Clock = Callable[[Sequence[Channels]], list[Times]]
"""Time a layer shape at some channels, interleaved."""


@dataclass(frozen=True)
class Shape:
    """A layer shape: a piece that has it, and the counts that pieces with it may take along each axis."""

    piece: Piece
    counts: tuple[tuple[int, ...], ...]


def shapes_of(found: Sequence[Piece], space: Space) -> list[Shape]:
    """Return the distinct layer shapes of a space, in the order of the network."""
    alike: dict[str, list[Piece]] = {}
    for piece in found:
        alike.setdefault(piece.shape, []).append(piece)
    shapes = []
    for same in alike.values():
        finest = min(same, key=lambda piece: _steps(piece, space))  # it can be built at what the others can
        axes = range(len(finest.axes))
        counts = [sorted({c for piece in same for c in _options(piece, axis, space)}) for axis in axes]
        shapes.append(Shape(finest, tuple(_at_hand(finest, axis, counts, space) for axis in axes)))
    return shapes


def _steps(piece: Piece, space: Space) -> list[int]:
    """Return the steps in which a piece's units can be built."""
    return [space.units[unit].unit.granule for axis in piece.units for unit in axis]


def _at_hand(piece: Piece, axis: int, options: Sequence[Sequence[int]], space: Space) -> tuple[int, ...]:
    """Return the counts along an axis at which a piece can be built: near the options, and out to their ends."""

    def built(count: int) -> int:
        point = [own[0] if place != axis else count for place, own in enumerate(options)]
        return piece.counts(channels_at(piece, point, space))[axis]

    low, high = options[axis][0], options[axis][-1]
    least = next((b for count in range(low, 0, -1) if (b := built(count)) <= low), low)
    most = next((b for count in range(high, 2 * high + 1) if (b := built(count)) >= high), high)
    inner = {b for count in options[axis] if least < (b := built(count)) < most}
    return tuple(sorted({least, most} | {count for count in inner if built(count) == count}))


def _options(piece: Piece, axis: int, space: Space) -> list[int]:
    """Return the counts that a piece may take along one axis."""
    layouts = piece.axes[axis]
    if len(layouts) == 1 and len(layouts[0]) == 1:
        (segment,) = layouts[0]
        assert segment.unit is not None
        unit = space.units[segment.unit]
        return [count * segment.multiplicity for count in {*unit.counts, unit.unit.base}]
    low, high = (piece.counts(ends)[axis] for ends in space.ends)
    return sorted({round(low + (high - low) * level / (LEVELS - 1)) for level in range(LEVELS)})


def channels_at(piece: Piece, counts: Sequence[int], space: Space) -> dict[str, int]:
    """Return channels at which a piece has some counts, or nearly so where several units share an axis."""
    channels = {name: unit.unit.base for name, unit in space.units.items()}
    for axis, count in zip(piece.axes, counts, strict=True):
        channels.update(_shared_out(axis, count, space))
    return channels


def _shared_out(axis: Axis, count: int, space: Space) -> dict[str, int]:
    """Share features out among the units of an axis, as their base counts are to each other."""
    segments = [segment for layout in axis for segment in layout]
    left = count - sum(s.base for s in segments if s.unit is None)
    whole = sum(s.base for s in segments if s.unit is not None)
    channels: dict[str, int] = {}
    for segment in (s for s in segments if s.unit is not None):
        assert segment.unit is not None
        if segment.unit not in channels:
            granule = space.units[segment.unit].unit.granule
            share = left * segment.base / max(whole, 1) / segment.multiplicity
            channels[segment.unit] = max(granule, round(share / granule) * granule)
        left -= channels[segment.unit] * segment.multiplicity
        whole -= segment.base
    return channels


@dataclass
class Growing:
    """A grid under way: what was measured, by counts."""

    axes: list[list[int]]
    times: dict[tuple[int, ...], Times] = field(default_factory=dict)

    def points(self, axis: int | None = None, count: int = 0) -> list[tuple[int, ...]]:
        """Return all points of the grid, or those of one line across it."""
        counts = [[count] if place == axis else own for place, own in enumerate(self.axes)]
        return list(product(*counts))

    def grid(self) -> Grid:
        """Return the grid as it stands."""
        return Grid(tuple(map(tuple, self.axes)), tuple(self.times[point].ms for point in self.points()))

    def layer(self, piece: Piece) -> LayerTimes:
        """Return what a table holds of it."""
        times = [self.times[point] for point in self.points()]
        ms, spread = [round(t.ms, 6) for t in times], [round(t.spread, 4) for t in times]
        cold = [round(t.cold, 6) for t in times] if piece.multiplies else []
        return LayerTimes(shape=piece.shape, example=piece.name, counts=self.axes, ms=ms, spread=spread, cold_ms=cold)


def refined(shape: Shape, space: Space, clock: Clock, tolerance: float = TOLERANCE) -> Growing:
    """Measure the ends of every axis, then halve where interpolation errs by more than `tolerance` and the noise.

    The first two halvings are not asked: kernels that work in blocks make stairs, whose middle may lie on the line.
    """

    def measure(points: Sequence[tuple[int, ...]]) -> None:
        new = [point for point in points if point not in grid.times]
        measured = clock([channels_at(shape.piece, point, space) for point in new])
        grid.times.update(zip(new, measured, strict=True))

    grid = Growing([sorted({own[0], own[-1]}) for own in shape.counts])
    measure(grid.points())
    for axis, options in enumerate(shape.counts):
        waiting = [(options[0], options[-1], 0)]
        while waiting:
            low, high, depth = waiting.pop()
            between = [count for count in options if low < count < high]
            if not between:
                continue
            middle = min(between, key=lambda count: abs(2 * count - low - high))
            line, before = grid.points(axis, middle), grid.grid()
            measure(line)
            grid.axes[axis] = sorted({*grid.axes[axis], middle})
            if depth == 0 or any(_errs(before.at(point), grid.times[point], tolerance) for point in line):
                waiting += [(low, middle, depth + 1), (middle, high, depth + 1)]
    return grid


def _errs(predicted: float, times: Times, tolerance: float) -> bool:
    """Tell whether a prediction is off by more than a tolerance and what the noise explains."""
    return abs(predicted - times.ms) > max(tolerance, times.spread) * times.ms
