"""Hold what all rules share: how a node is asked, and what becomes of one that no rule understands."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import fx, nn

from autoslim_cli.errors import UsageError
from autoslim_cli.network.open_units import Tagged, pin

if TYPE_CHECKING:
    from autoslim_cli.network.trace import Walk

Rule = Callable[["Walk", fx.Node], Tagged | None]

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
    own = {**module._parameters, **module._buffers}
    extra = [tensor for name, tensor in own.items() if name not in KNOWN_TENSORS and tensor is not None]
    return all(weight is not None and tensor.shape[:1] == weight.shape[:1] for tensor in extra)


def name_of(node: fx.Node) -> str:
    """Return the readable name of a function or method."""
    return str(getattr(node.target, "__name__", node.target))


def source_of(node: fx.Node) -> fx.Node:
    """Return a node's first input."""
    return node.all_input_nodes[0]


def argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    """Return an argument given by position or by name; a `dim` may be called `axis`, as in NumPy."""
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name, node.kwargs.get("axis", default) if name == "dim" else default)


def moved(tag: Tagged, to: Callable[[int], int]) -> Tagged:
    """Return a layout whose dimensions went elsewhere."""
    return Tagged(to(tag.dim), tag.layout, tag.count, None if tag.outer is None else to(tag.outer))


def unknown(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Pin everything that the operation touches; its output is of fixed shape.

    Raises UsageError for an operation that multiplies: its FLOPs would be missing from every count.
    """
    module = walk.called(node) if node.op == "call_module" else None
    what = type(module).__name__ if module is not None else name_of(node)
    where = str(node.target) if module is not None else node.name
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
    touched = [tag for source in node.all_input_nodes if source in walk.tags and (tag := walk.tag(source))]
    touched += [tag for source in node.all_input_nodes for tag in walk.parts.get(source, [])]
    for tag in touched:
        pin(tag.layout, reason)
    if touched:
        walk.notes.append(reason)
    walk.mixing.add(node)
    return None


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
