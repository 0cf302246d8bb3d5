"""Change units as facts say: pin or cap them, make them equal, group them, let others stand for them."""

import math
from collections.abc import Sequence

from autoslim_cli.network.facts import Cap, FallsIntoRuns, Group, Merge, Pin, Rearranged, UnitFact
from autoslim_cli.network.layouts import OpenLayout, OpenSegment, OpenUnit, granules_with, resolve, size


def change(fact: UnitFact) -> None:
    """Let a fact be so from now on."""
    match fact:
        case Pin(layout, reason):
            pin(layout, reason)
        case Cap(layout, reason):
            _cap(layout, reason)
        case Merge(first, second, where):
            merge(first, second, where)
        case Group(unit, granule, layer):
            unit.granule = math.lcm(unit.granule, granule)
            unit.layers.append(layer)
        case FallsIntoRuns(unit, parts):
            _let_stand_for(unit, parts)
        case Rearranged(unit):
            unit.rearranged = True


def pin(layout: OpenLayout, reason: str) -> None:
    """Pin every unit of a layout at base width; the first reason stays."""
    for segment in resolve(layout):
        if segment.unit is not None:
            segment.unit.pinned = segment.unit.pinned or reason


def _cap(layout: OpenLayout, reason: str) -> None:
    """Let no unit of a layout have more than at base width; the first reason stays."""
    for segment in resolve(layout):
        if segment.unit is not None:
            segment.unit.capped = segment.unit.capped or reason


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
    """Return where in the graph the first unit of a layout was opened."""
    return min((segment.unit.order for segment in layout if segment.unit), default=-1)


def _stands(layout: OpenLayout, other: OpenLayout) -> bool:
    """Let `other` stand for the single unit of `layout` if it can."""
    if len(layout) != 1 or layout[0].unit is None or any(segment.unit is None for segment in other):
        return False
    unit, multiplicity = layout[0].unit, layout[0].multiplicity
    if any(segment.unit is unit or segment.multiplicity % multiplicity for segment in other):
        return False
    parts = [OpenSegment(s.unit, s.base // multiplicity, s.multiplicity // multiplicity) for s in other]
    if granules_with(unit, parts) is None:
        return False
    _let_stand_for(unit, parts)
    return True


def _let_stand_for(unit: OpenUnit, parts: Sequence[OpenSegment]) -> None:
    """Let parts, whose granules fit, stand for a unit from now on."""
    granules = granules_with(unit, parts)
    assert granules is not None
    for part, granule in zip(parts, granules, strict=True):
        heir = part.unit
        assert heir is not None
        heir.granule = granule
        heir.layers += [layer for layer in unit.layers if layer not in heir.layers]
        heir.rearranged |= unit.rearranged
        heir.pinned = heir.pinned or unit.pinned
        heir.capped = heir.capped or unit.capped
    unit.becomes = tuple(parts)
