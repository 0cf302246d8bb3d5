"""Say how many values a network's tensors hold, as functions of channels."""

import math
from dataclasses import dataclass

from torch import fx

from autoslim_cli.network.reading import Reading
from autoslim_cli.network.table import Channels, Layout, features


@dataclass(frozen=True)
class TensorSize:
    """A tensor's size for one image: `fixed` values for each feature of a layout, or in all without one."""

    fixed: int
    layout: Layout

    def values(self, channels: Channels) -> int:
        """Return how many values it holds."""
        return self.fixed * features(self.layout, channels) if self.layout else self.fixed


def tensor_size(reading: Reading, node: fx.Node) -> TensorSize:
    """Return a tensor node's size as a function of channels."""
    shape = reading.shapes[node][1:]
    if node not in reading.layouts:
        return TensorSize(math.prod(shape), ())
    dim, layout = reading.layouts[node]
    return TensorSize(math.prod(shape[: dim - 1]) * math.prod(shape[dim:]), layout)
