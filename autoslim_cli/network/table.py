"""Hold what was read of a network: the layer table and the channel units. Pure data, no tensors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Channels = Mapping[str, int]
"""One count for every unit: a point of the search space."""

Kind = Literal["conv", "transposed", "linear", "norm", "layer_norm", "group_norm", "prelu", "parameter"]

Range = tuple[int, int]
"""Start and stop of a run of channels."""


@dataclass(frozen=True)
class Segment:
    """A run of features that one unit decides: `multiplicity` features per channel, or a fixed number."""

    unit: str | None
    base: int
    multiplicity: int = 1

    def features(self, channels: Channels) -> int:
        """Return how many features the segment has at these channels."""
        return self.base if self.unit is None else channels[self.unit] * self.multiplicity


Layout = tuple[Segment, ...]
"""The channel dimension of one tensor, segment after segment (several after a concat)."""


def first_part(layout: Layout, count: int) -> Layout:
    """Return the first of `count` equal parts of a layout."""
    part = sum(segment.base for segment in layout) // count
    taken: list[Segment] = []
    for segment in layout:
        if sum(s.base for s in taken) < part:
            taken.append(segment)
    return tuple(taken)


def features(layout: Layout, channels: Channels) -> int:
    """Return the size of the channel dimension at these channels."""
    return sum(segment.features(channels) for segment in layout)


def ranges(layout: Layout, stored: Channels, used: Channels) -> list[Range]:
    """Return which features of a tensor stored at `stored` channels are in use at `used`: each segment's first ones.

    Neighbouring runs are joined, so an unsliced layout is one run.
    """
    runs: list[Range] = []
    start = 0
    for segment in layout:
        stop = start + segment.features(used)
        if runs and runs[-1][1] == start:
            runs[-1] = (runs[-1][0], stop)
        else:
            runs.append((start, stop))
        start += segment.features(stored)
    return runs


def dropped(layout: Layout, stored: Channels, before: Channels, after: Channels) -> list[Range]:
    """Return which features of a tensor stored at `stored` channels are in use at `before`, no longer at `after`."""
    runs: list[Range] = []
    start = 0
    for segment in layout:
        if segment.features(after) < segment.features(before):
            runs.append((start + segment.features(after), start + segment.features(before)))
        start += segment.features(stored)
    return runs


@dataclass(frozen=True)
class LayerRow:
    """One layer that holds weights: a line of the layer table.

    `positions` are the output positions of one image, summed over calls (112 * 112 for a stem; 1 for a classifier), for
    a transposed convolution the input positions; `kernel` the taps per input channel (9 for 3x3). A grouped convolution
    keeps either the size of its groups (`group_inputs` input channels each, as many groups as fit) or their number
    (`groups`); a group normalisation keeps the size. Subclasses of layers add `extra` parameters per output channel.
    A bare parameter's channels lie along its dimension `axis`.
    """

    name: str
    kind: Kind
    inputs: Layout
    outputs: Layout
    kernel: int = 1
    positions: int = 0
    group_inputs: int = 0
    groups: int = 1
    weight: bool = True
    bias: bool = True
    extra: int = 0
    axis: int = 0

    @property
    def multiplies(self) -> bool:
        """Tell whether the layer is a convolution or linear: what FLOPs count."""
        return self.kind in ("conv", "transposed", "linear")

    @property
    def place(self) -> tuple[str, str | None]:
        """Return the module that holds the layer's tensors, and which one if it is a bare parameter."""
        if self.kind != "parameter":
            return self.name, None
        module, _, tensor = self.name.rpartition(".")
        return module, tensor

    def fan_in(self, channels: Channels) -> int:
        """Return how many weights make one output value."""
        if not self.multiplies:
            return 1
        return self.kernel * (self.group_inputs or features(self.inputs, channels) // self.groups)

    def flops(self, channels: Channels) -> int:
        """Return the multiply-adds for one image; zero for all but convolutions and linear layers."""
        return self.positions * self.fan_in(channels) * features(self.outputs, channels) if self.multiplies else 0

    def params(self, channels: Channels) -> int:
        """Return the number of weights and biases."""
        return features(self.outputs, channels) * (self.weight * self.fan_in(channels) + self.bias + self.extra)

    @property
    def units(self) -> set[str]:
        """Return the units that decide the layer's shape."""
        return {segment.unit for segment in (*self.inputs, *self.outputs) if segment.unit is not None}


@dataclass(frozen=True)
class Unit:
    """The layers whose channel counts must be equal, named after the first that produces them.

    `granule`: counts must be multiples of it (the channels of one group of a grouped convolution).
    `pinned`: why the count stays at base, or None; `capped`: why it is never larger, or None. `sortable`: no operation
    gives the order of its channels a meaning. `tied`: the units that a recipe has made one with it (`space.tie`).
    """

    name: str
    layers: tuple[str, ...]
    base: int
    granule: int = 1
    pinned: str | None = None
    capped: str | None = None
    sortable: bool = True
    tied: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerTable:
    """Everything that shapes and costs are computed from.

    `other_params` counts weights outside the table (unread operations); their size never changes.
    `notes` name the operations that were not understood.
    """

    rows: tuple[LayerRow, ...]
    units: tuple[Unit, ...]
    other_params: int = 0
    notes: tuple[str, ...] = ()

    @property
    def base(self) -> dict[str, int]:
        """Return the channels of the network as it was read."""
        return {unit.name: unit.base for unit in self.units}

    @property
    def free(self) -> Iterator[Unit]:
        """Iterate over the units that a search may slim."""
        return (unit for unit in self.units if unit.pinned is None)

    def row(self, name: str) -> LayerRow:
        """Return the row of one layer; KeyError if it has none."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)
