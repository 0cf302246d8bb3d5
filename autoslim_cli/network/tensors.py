"""Find the tensors in what networks give, and say how many values they hold, as functions of channels."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, fx

from autoslim_cli.network.reading import Reading
from autoslim_cli.network.table import Channels, Layout, features


def tensors_in(value: object) -> Iterator[Tensor]:
    """Yield the tensors of a value: one, or those in its tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_in(part)


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
    shape, layout = reading.shapes[node], Layout()
    if node in reading.layouts:
        dim, layout = reading.layouts[node]
        shape = shape[:dim] + shape[dim + 1 :]
    whole = math.prod(shape)  # for two images, unless it does not come of them
    return TensorSize(-(-whole // 2) if node in reading.of_images else whole, layout)
