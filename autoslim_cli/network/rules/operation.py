"""Hold what all rules share: what they see of an operation, and what becomes of one that no rule understands."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from autoslim_cli.errors import UsageError
from autoslim_cli.network.facts import Fact, Found, Mixes, NotUnderstood, Pin
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
    `fixed_groups` are the numbers of parts that the code cuts channels into.
    """

    node: fx.Node
    order: int
    layer: Any
    inputs: Mapping[fx.Node, Value]
    output: Value
    fixed_groups: frozenset[int]

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

    def argument(self, position: int, name: str, default: Any) -> Any:
        """Return an argument given by position or by name; a `dim` may be called `axis`, as in NumPy."""
        if len(self.node.args) > position:
            return self.node.args[position]
        return self.node.kwargs.get(name, self.node.kwargs.get("axis", default) if name == "dim" else default)


Rule = Callable[[Operation], Found]

LAYERS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.Linear, nn.PReLU),
)
"""Layers with weights that have a rule; a subclass follows the rule of its base."""
KNOWN_TENSORS = frozenset(("weight", "bias", "running_mean", "running_var", "num_batches_tracked"))


def is_layer(module: nn.Module) -> bool:
    """Tell whether a module is a known layer, or a subclass of one that adds no tensors but one value per channel."""
    if not isinstance(module, LAYERS) or any(True for child in module.children() for _ in child.parameters()):
        return False
    weight = module._parameters.get("weight")
    tensors = {**module._parameters, **module._buffers}
    extra = [tensor for name, tensor in tensors.items() if name not in KNOWN_TENSORS and tensor is not None]
    return all(weight is not None and tensor.shape[:1] == weight.shape[:1] for tensor in extra)


def name_of(node: fx.Node) -> str:
    """Return the readable name of a function or method."""
    return str(getattr(node.target, "__name__", node.target))


def moved(tag: Tagged, to: Callable[[int], int]) -> Tagged:
    """Return a layout whose dimensions went elsewhere."""
    return Tagged(to(tag.dim), tag.layout, tag.count, None if tag.outer is None else to(tag.outer))


def unknown(operation: Operation) -> Found:
    """Pin everything that the operation touches; its output is of fixed shape.

    Raises UsageError for an operation that multiplies: its FLOPs would be missing from every count.
    """
    node, where = operation.node, operation.where
    module: nn.Module | None = operation.layer if node.op == "call_module" else None
    what = type(module).__name__ if module is not None else name_of(node)
    matrices = module is not None and any(p.dim() > 1 for p in module.parameters())
    if "attention" in what.lower():
        raise UsageError(f"{what} at {where}: attention is not slimmed; autoslim is for convolutional networks")
    if what in NORMALISING:
        raise UsageError(f"{what} at {where} normalises outside of a layer of torch.nn; write it with nn.BatchNorm2d")
    if what in MULTIPLYING or (matrices and not is_layer(module or nn.Identity())):
        raise UsageError(
            f"{what} at {where} multiplies outside of convolution and linear layers: its channels and FLOPs cannot be "
            "read; write it with nn.Conv2d or nn.Linear"
        )
    reason = f"{what} at {where} is not understood"
    touched = [value.tag for value in operation.inputs.values() if value.tag]
    touched += [tag for value in operation.inputs.values() for tag in value.parts]
    pins: list[Fact] = [Pin(tag.layout, reason) for tag in touched]
    return Found(facts=(*pins, *([NotUnderstood(reason)] if touched else []), Mixes()))


NORMALISING = frozenset(("batch_norm", "native_batch_norm", "sync_batch_norm"))
MULTIPLYING = frozenset(
    (
        *(
            "conv1d",
            "conv2d",
            "conv3d",
            "conv_transpose1d",
            "conv_transpose2d",
            "conv_transpose3d",
            "linear",
            "bilinear",
        ),
        *("matmul", "mm", "bmm", "einsum", "addmm", "baddbmm", "tensordot", "dot", "mv", "outer", "deform_conv2d"),
    )
)
