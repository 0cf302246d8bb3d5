"""Rebuild a network at any channels: widening, uniform widths, extraction and retraining are this one operation."""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from autoslim_cli.errors import UsageError, is_out_of_memory
from autoslim_cli.network.table import Channels, LayerRow, LayerTable, Layout, Range, features, first_part, ranges
from autoslim_cli.network.text import first_line

Tensors = dict[str, Tensor]
Sizes = dict[str, int | tuple[int, ...]]
"""The attributes by which a layer knows its own size."""
Axes = dict[int, Layout]
"""Which dimensions of a tensor channels decide, and how."""


def axes(row: LayerRow, name: str, tensor: Tensor) -> Axes:
    """Return the dimensions of one of a layer's tensors that channels decide."""
    if tensor.dim() == 0:  # BN's count of batches
        return {}
    if row.kind == "parameter":
        return {row.axis: row.outputs}
    if name == "weight" and row.multiplies:
        inputs = first_part(row.inputs, row.groups)
        return _WEIGHT_AXES[row.kind, bool(row.group_inputs)](inputs, row.outputs)
    return {0: row.outputs}


_WEIGHT_AXES: dict[tuple[str, bool], Callable[[Layout, Layout], Axes]] = {
    ("conv", False): lambda inputs, outputs: {0: outputs, 1: inputs},
    ("conv", True): lambda inputs, outputs: {0: outputs},
    ("linear", False): lambda inputs, outputs: {0: outputs, 1: inputs},
    ("transposed", False): lambda inputs, outputs: {0: inputs, 1: outputs},
    ("transposed", True): lambda inputs, outputs: {0: inputs},
}


def sizes(row: LayerRow, channels: Channels) -> Sizes:
    """Return the attributes by which a layer knows its own size."""
    return _SIZES[row.kind](row, features(row.inputs, channels), features(row.outputs, channels))


def _convolution_sizes(row: LayerRow, inputs: int, outputs: int) -> Sizes:
    groups = {"groups": inputs // row.group_inputs} if row.group_inputs else {}
    return {"in_channels": inputs, "out_channels": outputs, **groups}


def _group_norm_sizes(row: LayerRow, _inputs: int, outputs: int) -> Sizes:
    groups = {"num_groups": outputs // row.group_inputs} if row.group_inputs else {}
    return {"num_channels": outputs, **groups}


_SIZES: dict[str, Callable[[LayerRow, int, int], Sizes]] = {
    "conv": _convolution_sizes,
    "transposed": _convolution_sizes,
    "linear": lambda row, inputs, outputs: {"in_features": inputs, "out_features": outputs},
    "norm": lambda row, inputs, outputs: {"num_features": outputs},
    "layer_norm": lambda row, inputs, outputs: {"normalized_shape": (outputs,)},
    "group_norm": _group_norm_sizes,
    "prelu": lambda row, inputs, outputs: {},
    "parameter": lambda row, inputs, outputs: {},
}


def cut(tensor: Tensor, runs: Mapping[int, list[Range]]) -> Tensor:
    """Return some runs of a tensor's dimensions: a view wherever a dimension has one run."""
    for dim, parts in runs.items():
        pieces = [tensor.narrow(dim, start, stop - start) for start, stop in parts]
        tensor = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)
    return tensor


def runs_in_use(row: LayerRow, name: str, tensor: Tensor, stored: Channels, used: Channels) -> dict[int, list[Range]]:
    """Return, per dimension that channels decide, the runs of a tensor stored at `stored` that `used` channels need."""
    return {dim: ranges(layout, stored, used) for dim, layout in axes(row, name, tensor).items()}


def tensors_of(module: nn.Module, only: str | None = None) -> Tensors:
    """Return a module's own parameters and buffers, or one of them, detached."""
    tensors: Mapping[str, Tensor | None] = {**module._parameters, **module._buffers}
    return {name: t.detach() for name, t in tensors.items() if t is not None and only in (None, name)}


def row_tensors(network: nn.Module, row: LayerRow) -> Tensors:
    """Return the tensors of one row of the table, detached."""
    module, only = row.place
    return tensors_of(network.get_submodule(module), only)


def copied(module: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """Return a copy of a module, and of what it holds. Raises UsageError if that cannot be copied.

    Tensors that are computed from parameters cannot be, nor locks, open files, and the like.
    """
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:  # whatever the user's own attributes raise
        if is_out_of_memory(error):
            raise
        advice = (
            "take off weight_norm, spectral_norm or pruning first (torch.nn.utils.remove_weight_norm, prune.remove)"
        )
        if not isinstance(error, RuntimeError):
            advice = "let it hold nothing that cannot be copied, as a lock or an open file"
        raise UsageError(f"{type(module).__name__} cannot be copied ({first_line(error)}): {advice}") from None


def assemble(
    network: nn.Module, table: LayerTable, channels: Channels, tensors: Callable[[LayerRow], Tensors]
) -> nn.Module:
    """Return a copy of the network whose layers have the sizes of `channels` and the tensors given for each row."""
    new = copy.deepcopy(network)
    for row in table.rows:
        resize(new.get_submodule(row.place[0]), sizes(row, channels), tensors(row))
    return new


def resize(layer: nn.Module, attributes: Sizes, tensors: Tensors) -> None:
    """Give a layer other sizes and tensors."""
    for name, value in attributes.items():
        setattr(layer, name, value)
    for name, tensor in tensors.items():
        old = layer._parameters.get(name)
        if old is None:
            layer._buffers[name] = tensor
        else:
            layer._parameters[name] = nn.Parameter(tensor, requires_grad=old.requires_grad)


def on_device(network: nn.Module, device: torch.device, part: str = "") -> nn.Module:
    """Move a network to a device, channels last: several times faster for depthwise convolutions on a CPU.

    Not if a part of it was read: what lies around that is not known, and may view tensors in the usual order
    (torchvision's keypoint heads do).
    """
    network.to(device)
    if not part and all(parameter.dim() < 5 for parameter in network.parameters()):
        network.to(memory_format=torch.channels_last)
    return network


def fresh(network: nn.Module, table: LayerTable, channels: Channels) -> nn.Module:
    """Return the network at `channels`, initialised as it initialises itself.

    `network` is freshly built at base width. A tensor whose shape changes draws its values from those that the
    network's own initialisation gave it (any distribution and any constant carries over), scaled by
    sqrt(base fan-in / fan-in), which keeps the variance of the layer's output (He et al. 2015, section 2.2).
    Randomness: torch's global generator.
    """
    base = table.base

    def tensors(row: LayerRow) -> Tensors:
        gain = math.sqrt(row.fan_in(base) / row.fan_in(channels))
        return {
            name: _redrawn(tensor, shape_at(row, name, tensor, channels), gain if name == "weight" else 1.0)
            for name, tensor in row_tensors(network, row).items()
        }

    return assemble(network, table, channels, tensors)


def shape_at(row: LayerRow, name: str, tensor: Tensor, channels: Channels) -> list[int]:
    """Return the shape of one of a layer's tensors at other channels."""
    shape = list(tensor.shape)
    for dim, layout in axes(row, name, tensor).items():
        shape[dim] = features(layout, channels)
    return shape


def _redrawn(tensor: Tensor, shape: list[int], gain: float) -> Tensor:
    """Return a tensor of another shape, its values drawn from the old ones."""
    if shape == list(tensor.shape):
        return tensor.clone()
    return tensor.flatten()[torch.randint(tensor.numel(), shape)] * gain
