"""Lay out the channels of tensors while a network is being read, when units may still become one another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from autoslim_cli.network.table import Kind


@dataclass(eq=False)
class OpenUnit:
    """A unit under way; `units.py` alone changes it.

    `layers` produce its channels. `order` is the place in the graph of the operation that opened it. `becomes` is the
    layout of other units that stands for it, once there is one. `capped`: why it never has more than at base width.
    `rearranged`: some tensor holds its channels in another order, so that they cannot be sorted.
    """

    base: int
    order: int
    layers: list[str] = field(default_factory=list)
    granule: int = 1
    pinned: str | None = None
    capped: str | None = None
    rearranged: bool = False
    becomes: "OpenLayout | None" = None


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


@dataclass(frozen=True)
class OpenRow:
    """A row of the layer table under way; the fields are those of `LayerRow`."""

    kind: Kind
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


def resolve_tag(tag: Tagged | None) -> Tagged | None:
    """Return where a tensor's channels lie, in the units that stand now."""
    return tag and Tagged(tag.dim, resolve(tag.layout), tag.count, tag.outer)


def granules_with(unit: OpenUnit, parts: Sequence[OpenSegment]) -> list[int] | None:
    """Return the granule that the unit of each part has once the parts stand for `unit`; None if one does not fit."""
    granules: dict[int, int] = {}
    for part in parts:
        assert part.unit is not None
        needed = unit.granule // math.gcd(unit.granule, part.multiplicity)
        granules[id(part.unit)] = math.lcm(granules.get(id(part.unit), part.unit.granule), needed)
        if part.unit.base % granules[id(part.unit)]:
            return None
    return [granules[id(part.unit)] for part in parts]
