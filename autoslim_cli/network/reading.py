"""Hold a network that was read."""

from dataclasses import dataclass

from torch import fx, nn

from autoslim_cli.network.table import LayerTable, Layout


@dataclass(frozen=True)
class Reading:
    """A network that was read: the module, its graph in eval mode, and what they say.

    `layouts` gives each tensor node's channel dimension and layout; nodes without one are of fixed shape.
    `mixing` holds the nodes whose output channels depend on other input channels than their own.
    """

    module: nn.Module
    graph: fx.Graph
    table: LayerTable
    layouts: dict[fx.Node, tuple[int, Layout]]
    mixing: frozenset[fx.Node]
