"""Interpolate between times that were measured on a grid of channel counts."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True)
class Grid:
    """Times on a rectangular grid of counts, multilinear between its points and constant beyond its ends.

    `counts` ascend along each axis; `ms` hold the milliseconds row by row: the last axis runs fastest.
    """

    counts: tuple[tuple[int, ...], ...]
    ms: tuple[float, ...]

    def at(self, counts: Sequence[int]) -> float:
        """Return the milliseconds at some counts, one along each axis."""
        neighbours = [_neighbours(axis, count) for axis, count in zip(self.counts, counts, strict=True)]
        total = 0.0
        for corner in product(*neighbours):
            index, weight = 0, 1.0
            for (along_axis, share), axis in zip(corner, self.counts, strict=True):
                index, weight = index * len(axis) + along_axis, weight * share
            total += weight * self.ms[index]
        return total


def _neighbours(axis: Sequence[int], count: int) -> list[tuple[int, float]]:
    """Return the one or two points of an axis that a count lies at or between, each with its share."""
    right = bisect.bisect_left(axis, count)
    if right == len(axis) or axis[right] == count or right == 0:
        return [(min(right, len(axis) - 1), 1.0)]
    share = (count - axis[right - 1]) / (axis[right] - axis[right - 1])
    return [(right - 1, 1 - share), (right, share)]
