"""Hold a network that was read."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import fx, nn

from autoslim_cli.network.table import Channels, LayerRow, LayerTable, Layout, features


@dataclass(frozen=True)
class Reading:
    """A network that was read: the module, its graph in eval mode, and what they say.

    `shapes` holds the shapes of all tensor nodes at base width, for two images; `layouts` the channel dimension and the
    layout of each: nodes without one are of fixed shape.
    `mixing` holds the nodes whose output channels depend on other input channels than their own; `numbers` those that
    hold sizes and the like, no tensor; `memory` says, for a tensor node, which node made the memory that it lies in, if
    another did (views); `dtypes` those of the tensor nodes. `outputs` is what the graph gives for two images: meta
    tensors, in the tuples and dictionaries that hold them.
    `part` names the part of the module that was traced, and that the graph runs; without a name it is all of it. The
    names of layers are those of the whole module.
    """

    module: nn.Module
    graph: fx.Graph
    table: LayerTable
    layouts: dict[fx.Node, tuple[int, Layout]]
    mixing: frozenset[fx.Node]
    shapes: dict[fx.Node, tuple[int, ...]]
    dtypes: dict[fx.Node, torch.dtype]
    numbers: frozenset[fx.Node]
    memory: dict[fx.Node, fx.Node]
    part: str
    outputs: object

    def shape(self, node: fx.Node, channels: Channels, images: int) -> tuple[int, ...]:
        """Return a tensor node's shape at some channels, for a number of images; what comes of parameters has none."""
        shape = list(self.shapes[node])
        if node in self.layouts:
            dim, layout = self.layouts[node]
            shape[dim] = features(layout, channels)
        if shape and node in self.of_images:
            shape[0] = shape[0] * images // 2
        return tuple(shape)

    def traced(self, network: nn.Module) -> nn.Module:
        """Return the part that was traced of a network built as this one, at any channels."""
        return network.get_submodule(self.part)

    @cached_property
    def placeholders(self) -> tuple[fx.Node, ...]:
        """Return the nodes of the tensors that the graph takes."""
        return tuple(node for node in self.graph.nodes if node.op == "placeholder" and node in self.shapes)

    @cached_property
    def inputs(self) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of the tensors that the graph takes, for one image: (channels, height, width) each."""
        return tuple(self.shapes[node][1:] for node in self.placeholders)

    @cached_property
    def rows(self) -> dict[str, LayerRow]:
        """Return the rows of the layer table by name."""
        return {row.name: row for row in self.table.rows}

    def row_of(self, node: fx.Node) -> LayerRow | None:
        """Return the layer that a node calls, or whose parameter it reads; none if the table has none."""
        return self.rows.get(str(node.target)) if node.op in ("call_module", "get_attr") else None

    @cached_property
    def of_images(self) -> frozenset[fx.Node]:
        """Return the nodes that depend on the images."""
        found: set[fx.Node] = set()
        for node in self.graph.nodes:
            if node.op == "placeholder" or not found.isdisjoint(node.all_input_nodes):
                found.add(node)
        return frozenset(found)
