"""Cut a layout into equal parts."""

from autoslim_cli.network.facts import Fact, FallsIntoRuns, Merge, Rearranged
from autoslim_cli.network.layouts import OpenLayout, OpenSegment, OpenUnit, fixed, granules_with, size


def split(layout: OpenLayout, count: int, where: str) -> tuple[list[OpenLayout], tuple[Fact, ...]] | None:
    """Cut a layout into `count` parts that stay of equal size at any channels, given what must then be so.

    None if that cannot be.
    """
    part, left = divmod(size(layout), count)
    if left:
        return None
    # 1. Along the segments that are there.
    pieces: list[list[OpenSegment]] = [[]]
    for segment in layout:
        if sum(s.base for s in pieces[-1]) == part:
            pieces.append([])
        pieces[-1].append(segment)
    if all(sum(s.base for s in piece) == part for piece in pieces):
        first, *others = map(tuple, pieces)
        return [first, *others], tuple(Merge(first, other, where) for other in others)
    if len(layout) > 1:
        return None
    (segment,) = layout
    unit = segment.unit
    if unit is None:
        return [fixed(part)] * count, ()
    # 2. A channel that stands several times in a row: each part gets some of every channel's number.
    if segment.multiplicity % count == 0:
        return [(OpenSegment(unit, part, segment.multiplicity // count),)] * count, (Rearranged(unit),)
    # 3. The unit itself falls into equal runs.
    run = OpenUnit(unit.base // count, unit.order)
    runs = (OpenSegment(run, run.base),) * count
    if unit.base % count or granules_with(unit, runs) is None:
        return None
    return [(OpenSegment(run, part, segment.multiplicity),)] * count, (FallsIntoRuns(unit, runs),)
