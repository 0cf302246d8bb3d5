"""Keep channel units while a network is being read: open them, merge them, pin them."""

import math
from dataclasses import dataclass

from torch import nn


@dataclass
class OpenUnit:
    """A unit under way; `parent` leads to the unit that it was merged into."""

    base: int
    order: int
    layers: list[str]
    granule: int = 1
    pinned: str | None = None
    parent: "OpenUnit | None" = None

    def root(self) -> "OpenUnit":
        """Return the unit that stands for all units merged with this one."""
        return self if self.parent is None else self.parent.root()

    def pin(self, reason: str) -> None:
        """Keep the count at base; the first reason stays."""
        root = self.root()
        root.pinned = root.pinned or reason


@dataclass(frozen=True)
class OpenSegment:
    """A segment under way: `base` features, `multiplicity` of them per channel of the unit; fixed without one."""

    unit: OpenUnit | None
    base: int
    multiplicity: int = 1


OpenLayout = tuple[OpenSegment, ...]


@dataclass(frozen=True)
class Tagged:
    """Say which dimension of a tensor holds channels, and how they are laid out."""

    dim: int
    layout: OpenLayout


@dataclass
class OpenRow:
    """A row of the layer table under way."""

    module: nn.Module
    kind: str
    inputs: OpenLayout
    outputs: OpenLayout
    positions: int = 0
    group_inputs: int = 0


def fixed(count: int) -> OpenLayout:
    """Return the layout of `count` features that no unit decides."""
    return (OpenSegment(None, count),)


def pin(layout: OpenLayout, reason: str) -> None:
    """Pin every unit of a layout at base width."""
    for segment in layout:
        if segment.unit is not None:
            segment.unit.pin(reason)


def merge(first: OpenLayout, second: OpenLayout, where: str) -> None:
    """Make two layouts equal for good: their units become one, or are pinned where they do not match."""
    if [segment.base for segment in first] != [segment.base for segment in second]:
        pin(first + second, f"{where} combines different channel layouts")
        return
    for a, b in zip(first, second, strict=True):
        if a.unit is None or b.unit is None:
            pin((a, b), f"{where} combines it with a tensor of fixed width")
        elif a.multiplicity != b.multiplicity:
            pin((a, b), f"{where} combines different channel layouts")
        else:
            _unite(a.unit.root(), b.unit.root())


def _unite(a: OpenUnit, b: OpenUnit) -> None:
    """Merge two units into the one that was opened first."""
    if a is b:
        return
    kept, gone = (a, b) if a.order < b.order else (b, a)
    kept.layers += gone.layers
    kept.granule = math.lcm(kept.granule, gone.granule)
    kept.pinned = kept.pinned or gone.pinned
    gone.parent = kept
