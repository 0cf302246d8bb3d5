"""Keep channel units while a network is being read: open them, merge them, split them, pin them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

NOTHING_DECIDES = "no convolution or linear layer decides it"


@dataclass(eq=False)
class OpenUnit:
    """A unit under way.

    `layers` produce its channels. `becomes` is the layout of other units that stands for it, once there is one.
    `rearranged`: some tensor holds its channels in another order, so that they cannot be sorted.
    """

    base: int
    order: int
    layers: list[str] = field(default_factory=list)
    granule: int = 1
    pinned: str | None = None
    rearranged: bool = False
    becomes: "OpenLayout | None" = None

    def pin(self, reason: str) -> None:
        """Keep the count at base; the first reason stays."""
        self.pinned = self.pinned or reason


@dataclass(frozen=True)
class OpenSegment:
    """A segment under way: `base` features, `multiplicity` of them per channel of the unit; fixed without one."""

    unit: OpenUnit | None
    base: int
    multiplicity: int = 1


OpenLayout = tuple[OpenSegment, ...]


@dataclass(frozen=True)
class Tagged:
    """Say which dimension of a tensor holds channels, and how they are laid out.

    After a reshape into groups the channels fill two dimensions: `outer` holds `count` parts, each laid out as
    `layout` in `dim`. Behind `dim`, the outer dimension runs fastest (a channel shuffle).
    """

    dim: int
    layout: OpenLayout
    count: int = 1
    outer: int | None = None


@dataclass
class OpenRow:
    """A row of the layer table under way."""

    kind: str
    inputs: OpenLayout
    outputs: OpenLayout
    kernel: int = 1
    positions: int = 0
    group_inputs: int = 0
    groups: int = 1
    weight: bool = True
    bias: bool = True
    extra: int = 0
    axis: int = 0


def fixed(count: int) -> OpenLayout:
    """Return the layout of `count` features that no unit decides."""
    return (OpenSegment(None, count),)


def size(layout: OpenLayout) -> int:
    """Return the number of features at base width."""
    return sum(segment.base for segment in layout)


def scaled(layout: OpenLayout, factor: int) -> OpenLayout:
    """Return the layout in which every feature stands `factor` times in a row."""
    return tuple(OpenSegment(s.unit, s.base * factor, s.multiplicity * factor) for s in layout)


def resolve(layout: OpenLayout) -> OpenLayout:
    """Return a layout in the units that stand now."""
    parts: list[OpenSegment] = []
    for segment in layout:
        if segment.unit is None or segment.unit.becomes is None:
            parts.append(segment)
        else:
            parts += scaled(resolve(segment.unit.becomes), segment.multiplicity)
    return tuple(parts)


def pin(layout: OpenLayout, reason: str) -> None:
    """Pin every unit of a layout at base width."""
    for segment in resolve(layout):
        if segment.unit is not None:
            segment.unit.pin(reason)


def merge(first: OpenLayout, second: OpenLayout, where: str) -> None:
    """Make two layouts equal for good: their units become one, or are pinned where they do not match."""
    first, second = resolve(first), resolve(second)
    pairs = _aligned(first, second)
    if pairs is None:
        pin(first + second, f"{where} combines different channel layouts")
        return
    for one, others in pairs:
        _tie(resolve((one,)), resolve(others), where)


def _aligned(first: OpenLayout, second: OpenLayout) -> list[tuple[OpenSegment, OpenLayout]] | None:
    """Match each segment of one layout with the segments of the other that cover the same features."""
    if size(first) != size(second):
        return None
    pairs: list[tuple[OpenSegment, OpenLayout]] = []
    left, right = list(first), list(second)
    while left:
        if left[0].base < right[0].base:
            left, right = right, left
        one, covered = left.pop(0), [right.pop(0)]
        while sum(segment.base for segment in covered) < one.base:
            covered.append(right.pop(0))
        if sum(segment.base for segment in covered) > one.base:
            return None
        pairs.append((one, tuple(covered)))
    return pairs


def _tie(first: OpenLayout, second: OpenLayout, where: str) -> None:
    """Make layouts of the same features equal: one stands for the unit of the other, the older unit where both can."""
    if first == second:
        return
    if _opened(first) < _opened(second):
        first, second = second, first
    if _stands(first, second) or _stands(second, first):
        return
    is_fixed = any(segment.unit is None for segment in first + second)
    reason = "combines it with a tensor of fixed width" if is_fixed else "combines different channel layouts"
    pin(first + second, f"{where} {reason}")


def _opened(layout: OpenLayout) -> int:
    """Return when the first unit of a layout was opened."""
    return min((segment.unit.order for segment in layout if segment.unit), default=-1)


def _stands(layout: OpenLayout, other: OpenLayout) -> bool:
    """Let `other` stand for the single unit of `layout` if it can."""
    if len(layout) != 1 or layout[0].unit is None or any(segment.unit is None for segment in other):
        return False
    unit, multiplicity = layout[0].unit, layout[0].multiplicity
    if any(segment.unit is unit or segment.multiplicity % multiplicity for segment in other):
        return False
    parts = [OpenSegment(s.unit, s.base // multiplicity, s.multiplicity // multiplicity) for s in other]
    return _substitute(unit, parts)


def _substitute(unit: OpenUnit, parts: Sequence[OpenSegment]) -> bool:
    """Let parts stand for a unit from now on, unless its granule does not fit them."""
    granules: dict[int, int] = {}
    for part in parts:
        assert part.unit is not None
        needed = unit.granule // math.gcd(unit.granule, part.multiplicity)
        granules[id(part.unit)] = math.lcm(granules.get(id(part.unit), part.unit.granule), needed)
        if part.unit.base % granules[id(part.unit)]:
            return False
    for part in parts:
        heir = part.unit
        assert heir is not None
        heir.granule = granules[id(heir)]
        heir.layers += [layer for layer in unit.layers if layer not in heir.layers]
        heir.rearranged |= unit.rearranged
        if unit.pinned:
            heir.pin(unit.pinned)
    unit.becomes = tuple(parts)
    return True


def split(layout: OpenLayout, count: int, where: str) -> list[OpenLayout] | None:
    """Cut a layout into `count` parts that stay of equal size at any channels; None if that cannot be."""
    layout = resolve(layout)
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
        for piece in pieces[1:]:
            merge(tuple(pieces[0]), tuple(piece), where)
        return [resolve(tuple(piece)) for piece in pieces]
    if len(layout) > 1:
        return None
    (segment,) = layout
    unit = segment.unit
    if unit is None:
        return [fixed(part)] * count
    # 2. A channel that stands several times in a row: each part gets some of every channel's number.
    if segment.multiplicity % count == 0:
        unit.rearranged = True
        return [(OpenSegment(unit, part, segment.multiplicity // count),)] * count
    # 3. The unit itself falls into equal runs.
    run = OpenUnit(unit.base // count, unit.order)
    if unit.base % count or not _substitute(unit, [OpenSegment(run, run.base)] * count):
        return None
    return split(layout, count, where)
