"""Rebuild a network at any channels: widening, uniform widths, extraction and retraining are this one operation."""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from autoslim_cli.network.table import Channels, LayerRow, LayerTable, Layout, Range, features, ranges

Tensors = dict[str, Tensor]

_FIELDS = {
    "conv": ("in_channels", "out_channels"),
    "linear": ("in_features", "out_features"),
    "norm": (None, "num_features"),
}


def axes(row: LayerRow, name: str, tensor: Tensor) -> tuple[Layout, ...]:
    """Return the layouts that decide the leading dimensions of one of a layer's tensors."""
    if tensor.dim() == 0:  # BN's count of batches
        return ()
    if name == "weight" and row.kind != "norm" and not row.group_inputs:
        return (row.outputs, row.inputs)
    return (row.outputs,)


def runs_in_use(row: LayerRow, name: str, tensor: Tensor, held: Channels, used: Channels) -> list[list[Range]]:
    """Return, per dimension that channels decide, the runs of a tensor held at `held` that `used` channels need."""
    return [ranges(layout, held, used) for layout in axes(row, name, tensor)]


def cut(tensor: Tensor, dims: list[list[Range]]) -> Tensor:
    """Return the runs of a tensor: a view wherever a dimension has one run."""
    for dim, runs in enumerate(dims):
        pieces = [tensor.narrow(dim, start, stop - start) for start, stop in runs]
        tensor = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)
    return tensor


def tensors_of(layer: nn.Module) -> Tensors:
    """Return a layer's own parameters and buffers, detached."""
    own: Mapping[str, Tensor | None] = {**layer._parameters, **layer._buffers}
    return {name: tensor.detach() for name, tensor in own.items() if tensor is not None}


def assemble(
    network: nn.Module, table: LayerTable, channels: Channels, tensors: Callable[[LayerRow], Tensors]
) -> nn.Module:
    """Return a copy of the network whose layers have the sizes of `channels` and the tensors given for each row."""
    new = copy.deepcopy(network)
    for row in table.rows:
        replace(new, row.name, _resized(network.get_submodule(row.name), row, channels, tensors(row)))
    return new


def replace(network: nn.Module, name: str, layer: nn.Module) -> None:
    """Put a layer in the place of another, under every name that the other goes by."""
    old = network.get_submodule(name)
    for alias, module in list(network.named_modules(remove_duplicate=False)):
        if module is old:
            network.set_submodule(alias, layer)


def _resized(layer: nn.Module, row: LayerRow, channels: Channels, tensors: Tensors) -> nn.Module:
    """Return a layer of the same class and options with other channels and the given tensors."""
    new: Any = copy.copy(layer)
    new._parameters = {
        name: None if old is None else nn.Parameter(tensors[name], requires_grad=old.requires_grad)
        for name, old in layer._parameters.items()
    }
    new._buffers = {name: None if old is None else tensors[name] for name, old in layer._buffers.items()}
    inputs, outputs = _FIELDS[row.kind]
    if inputs:
        setattr(new, inputs, features(row.inputs, channels))
    setattr(new, outputs, features(row.outputs, channels))
    if row.group_inputs:
        new.groups = new.in_channels // row.group_inputs
    return new  # type: ignore[no-any-return]


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
            name: _redrawn(tensor, [features(axis, channels) for axis in axes(row, name, tensor)], gain, name)
            for name, tensor in tensors_of(network.get_submodule(row.name)).items()
        }

    return assemble(network, table, channels, tensors)


def _redrawn(tensor: Tensor, sizes: list[int], gain: float, name: str) -> Tensor:
    """Return a tensor with other leading sizes, its values drawn from the old ones."""
    shape = [*sizes, *tensor.shape[len(sizes) :]]
    if shape == list(tensor.shape):
        return tensor.clone()
    drawn = tensor.flatten()[torch.randint(tensor.numel(), shape)]
    return drawn * gain if name == "weight" else drawn
