"""Estimate the memory of a training step in closed form: weights, optimizer, and what backward passes read."""

from dataclasses import dataclass

from torch import fx

from autoslim_cli.network.reading import Reading
from autoslim_cli.network.table import Channels
from autoslim_cli.network.tensors import TensorSize, tensor_size
from autoslim_cli.recipe.schema import TrainSettings

# What an operation keeps for its backward pass, by the beginning of its name.
_INPUT = (
    *("conv", "linear", "batchnorm", "batch_norm", "avgpool", "avg_pool", "maxpool", "max_pool", "silu", "hardswish"),
    *("hardsigmoid", "gelu", "relu6", "hardtanh", "leakyrelu", "leaky_relu", "prelu", "elu", "mish", "mul"),
)
_OUTPUT = ("relu", "sigmoid", "softmax", "tanh")
_NOTHING = (
    *("add", "iadd", "sub", "cat", "flatten", "view", "reshape", "permute", "transpose", "identity", "mean"),
    *("getitem", "chunk", "split", "pad", "contiguous", "upsample", "interpolate", "unsqueeze", "squeeze"),
)

_VALUE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_OPTIMIZER_TENSORS = {"sgd": 1, "adamw": 2}
"""Tensors of the weights' size that an optimizer keeps."""


@dataclass(frozen=True)
class StepMemory:
    """What a training step holds at its peak: the tensors that the backward pass reads, and two that pass through.

    Which tensors an operation keeps is PyTorch's choice; of operations that are not known both input and output count.
    What a kernel needs for itself, and the fragments between tensors, are not counted.
    """

    saved: tuple[TensorSize, ...]
    reading: Reading

    @classmethod
    def of(cls, reading: Reading) -> "StepMemory":
        """Find the tensors that a backward pass reads."""
        kept: dict[fx.Node, None] = {}
        copies: list[fx.Node] = []
        for node in reading.graph.nodes:
            if node.op not in ("call_module", "call_function", "call_method") or node not in reading.shapes:
                continue
            kind = _kind(reading, node)
            inputs = [source for source in node.all_input_nodes if source in reading.shapes and source.op != "get_attr"]
            if not kind.startswith(_NOTHING):
                saves_input = kind.startswith(_INPUT) or not kind.startswith(_OUTPUT)
                saves_output = not kind.startswith(_INPUT)
                if saves_input and reading.memory.get(node) in {reading.memory.get(i, i) for i in inputs}:
                    copies.append(node)  # it writes over its input, and keeps a copy of it
                if kind.startswith(("maxpool", "max_pool")):
                    copies += [node, node]  # where the largest values were: 8 bytes for each
                for tensor in (*(inputs if saves_input else ()), *((node,) if saves_output else ())):
                    kept[reading.memory.get(tensor, tensor)] = None
        return cls(tuple(tensor_size(reading, node) for node in (*kept, *copies)), reading)

    def __call__(self, channels: Channels, images: int, settings: TrainSettings) -> int:
        """Return the bytes of a step over so many images at a time."""
        sizes = sorted((tensor.values(channels) for tensor in self.saved), reverse=True)
        values = (sum(sizes) + sum(sizes[:2])) * images
        weights = sum(row.params(channels) for row in self.reading.table.rows)
        copies = 2 + _OPTIMIZER_TENSORS[settings.optimizer] + (settings.ema is not None)  # 2: weights, gradients
        return values * _VALUE_BYTES[settings.precision] + weights * _VALUE_BYTES["fp32"] * copies


def _kind(reading: Reading, node: fx.Node) -> str:
    """Return the name of the operation of a node, as `conv2d` and `batchnorm2d`."""
    if node.op == "call_module":
        return type(reading.module.get_submodule(str(node.target))).__name__.lower().removeprefix("adaptive")
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return str(name).lower().removeprefix("adaptive_")
