"""Hold a network that was read."""

from dataclasses import dataclass

from torch import fx, nn

from autoslim_cli.network.table import Channels, LayerTable, Layout, features


@dataclass(frozen=True)
class Reading:
    """A network that was read: the module, its graph in eval mode, and what they say.

    `shapes` holds the shapes of all tensor nodes at base width, for two images; `layouts` the channel dimension and the
    layout of each: nodes without one are of fixed shape.
    `mixing` holds the nodes whose output channels depend on other input channels than their own.
    """

    module: nn.Module
    graph: fx.Graph
    table: LayerTable
    layouts: dict[fx.Node, tuple[int, Layout]]
    mixing: frozenset[fx.Node]
    shapes: dict[fx.Node, tuple[int, ...]]

    def shape(self, node: fx.Node, channels: Channels, images: int) -> tuple[int, ...]:
        """Return a tensor node's shape at some channels, for a number of images (a bare parameter's: for none)."""
        shape = list(self.shapes[node])
        if node in self.layouts:
            dim, layout = self.layouts[node]
            shape[dim] = features(layout, channels)
        if shape and node.op != "get_attr":
            shape[0] = shape[0] * images // 2
        return tuple(shape)
