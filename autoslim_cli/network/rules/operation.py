"""What a rule sees of an operation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx

from autoslim_cli.network.facts import Found
from autoslim_cli.network.layouts import OpenLayout, OpenSegment, OpenUnit, Tagged


@dataclass(frozen=True)
class Value:
    """What is known of the value of a node.

    `shape` at base width, for two images; None for what is no tensor. `parts` are the channels of a tuple's tensors.
    """

    shape: tuple[int, ...] | None = None
    tag: Tagged | None = None
    parts: tuple[Tagged, ...] = ()
    number: int | float | None = None


@dataclass(frozen=True)
class Operation:
    """What a rule sees of a node: the values of its inputs, in the units that stand now, and its output's shape.

    `order` is its place in the graph. `layer` is the module that it calls, or that holds the tensor that it fetches.
    `fixed_groups` are the numbers of parts that the code cuts channels into. `of_images`: whether it depends on the
    images, of which there are two.
    """

    node: fx.Node
    order: int
    layer: Any
    inputs: Mapping[fx.Node, Value]
    output: Value
    fixed_groups: frozenset[int]
    of_images: bool = True

    @property
    def source(self) -> fx.Node:
        """Return the node of the first input."""
        return self.node.all_input_nodes[0]

    @property
    def tag(self) -> Tagged | None:
        """Return where the channels of the first input lie; None if it is of fixed shape."""
        return self.inputs[self.source].tag

    @property
    def before(self) -> tuple[int, ...]:
        """Return the shape of the first input."""
        return self.inputs[self.source].shape or ()

    @property
    def after(self) -> tuple[int, ...]:
        """Return the shape of the output."""
        return self.output.shape or ()

    @property
    def where(self) -> str:
        """Name the operation as the user knows it: a layer by its own name."""
        return str(self.node.target) if self.node.op == "call_module" else self.node.name

    def open(self, count: int, layer: str | None) -> OpenLayout:
        """Return the layout of a new unit, produced by `layer` if by any."""
        return (OpenSegment(OpenUnit(count, self.order, [layer] if layer else []), count),)

    def argument(self, position: int, name: str, default: object) -> Any:
        """Return an argument given by position or by name; a `dim` may be called `axis`, as in NumPy."""
        if len(self.node.args) > position:
            return self.node.args[position]
        return self.node.kwargs.get(name, self.node.kwargs.get("axis", default) if name == "dim" else default)


Rule = Callable[[Operation], Found]


def name_of(node: fx.Node) -> str:
    """Return the readable name of a function or method."""
    return str(getattr(node.target, "__name__", node.target))


def moved(tag: Tagged, to: Callable[[int], int]) -> Tagged:
    """Return a layout whose dimensions went elsewhere."""
    return Tagged(to(tag.dim), tag.layout, tag.count, None if tag.outer is None else to(tag.outer))
