"""What a rule says of an operation: where its output's channels lie, and facts about units, the table and the graph."""

from dataclasses import dataclass
from typing import NamedTuple

from autoslim_cli.network.layouts import OpenLayout, OpenRow, OpenSegment, OpenUnit, Tagged


@dataclass(frozen=True)
class Pin:
    """The units of a layout stay at base width."""

    layout: OpenLayout
    reason: str


@dataclass(frozen=True)
class Cap:
    """The units of a layout never have more channels than at base width."""

    layout: OpenLayout
    reason: str


@dataclass(frozen=True)
class Merge:
    """Two layouts are equal at any channels; `where` names the operation that needs it."""

    first: OpenLayout
    second: OpenLayout
    where: str


@dataclass(frozen=True)
class Group:
    """A grouped layer makes a unit's channels come in multiples of `granule`, and produces them, too."""

    unit: OpenUnit
    granule: int
    layer: str


@dataclass(frozen=True)
class FallsIntoRuns:
    """A unit's channels are these parts, end to end, and some operation reads each by itself."""

    unit: OpenUnit
    parts: tuple[OpenSegment, ...]


@dataclass(frozen=True)
class Rearranged:
    """Some tensor holds a unit's channels in another order."""

    unit: OpenUnit


@dataclass(frozen=True)
class Enter:
    """The operation is a layer of the table; called a second time, both calls share their units."""

    row: OpenRow


@dataclass(frozen=True)
class Parts:
    """The operation gives a tuple of tensors, whose channels lie so."""

    tags: tuple[Tagged, ...]


@dataclass(frozen=True)
class Mixes:
    """Output channels depend on other input channels than their own."""


@dataclass(frozen=True)
class NotUnderstood:
    """No rule understands the operation."""

    reason: str


UnitFact = Pin | Cap | Merge | Group | FallsIntoRuns | Rearranged
Fact = UnitFact | Enter | Parts | Mixes | NotUnderstood


class Found(NamedTuple):
    """The result of a rule: the output's channels, None for a tensor whose shape never changes, and facts in order."""

    tag: Tagged | None = None
    facts: tuple[Fact, ...] = ()
