"""Say what happens to channels that become positions, and positions that become channels."""

import math
from collections.abc import Callable
from functools import wraps

from autoslim_cli.network.facts import FallsIntoRuns, Found
from autoslim_cli.network.layouts import OpenLayout, OpenSegment, OpenUnit, Tagged, granules_with, scaled
from autoslim_cli.network.rules.not_understood import unknown
from autoslim_cli.network.rules.operation import Operation, Rule


def _of_channels(rule: Callable[[Operation, Tagged], Found]) -> Rule:
    """Apply a rule where the layout is that of an image's channels; nothing else is understood."""

    @wraps(rule)
    def applied(operation: Operation) -> Found:
        tag = operation.tag
        if tag is None:
            return Found()
        if tag.outer is not None or tag.dim != len(operation.after) - 3:
            return unknown(operation)
        return rule(operation, tag)

    return applied


@_of_channels
def pixel_shuffle(operation: Operation, tag: Tagged) -> Found:
    """Make factor² neighbouring channels one: what produces them counts in such groups."""
    square = _factor(operation, "upscale_factor") ** 2
    if any(segment.base % square for segment in tag.layout):
        return unknown(operation)
    # 1. A unit's channels come in runs, one for each channel of a new unit, so long that every segment holds whole
    # squares.
    runs: dict[int, OpenSegment] = {}
    facts: list[FallsIntoRuns] = []
    for unit in {id(s.unit): s.unit for s in tag.layout if s.unit}.values():
        lengths = [square // math.gcd(square, s.multiplicity) for s in tag.layout if s.unit is unit]
        length = math.lcm(*lengths)
        if unit.base % length:
            return unknown(operation)
        runs[id(unit)] = run = OpenSegment(OpenUnit(unit.base // length, unit.order), unit.base, length)
        if length == 1:
            runs[id(unit)] = OpenSegment(unit, unit.base)
        elif granules_with(unit, [run]) is None:
            return unknown(operation)
        else:
            facts.append(FallsIntoRuns(unit, (run,)))
    # 2. A square of neighbouring features is one feature of the result.
    layout = tuple(
        OpenSegment(runs[id(s.unit)].unit, s.base // square, s.multiplicity * runs[id(s.unit)].multiplicity // square)
        if s.unit
        else OpenSegment(None, s.base // square)
        for s in tag.layout
    )
    return Found(Tagged(tag.dim, layout), tuple(facts))


@_of_channels
def pixel_unshuffle(operation: Operation, tag: Tagged) -> Found:
    """Let every channel stand factor² times in a row: once for each position of a block."""
    layout: OpenLayout = scaled(tag.layout, _factor(operation, "downscale_factor") ** 2)
    return Found(Tagged(tag.dim, layout))


def _factor(operation: Operation, name: str) -> int:
    """Return the factor by which an operation enlarges or shrinks images."""
    if operation.node.op == "call_module":
        return int(getattr(operation.layer, name))
    return int(operation.argument(1, name, 1))
