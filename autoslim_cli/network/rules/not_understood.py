"""Say what becomes of an operation that no rule understands."""

from torch import nn

from autoslim_cli.errors import UsageError
from autoslim_cli.network.facts import Fact, Found, Mixes, NotUnderstood, Pin
from autoslim_cli.network.rules.known_layers import is_layer
from autoslim_cli.network.rules.operation import Operation, name_of


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
