"""Compute a layer's output for fewer input channels from what it is for all: less what those that go add to it.

Convolutions and linear layers are linear in each input channel, and a search takes few of them at a time: that is a
tenth of the multiply-adds of computing the rest anew.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from autoslim_cli.network.rebuild import cut, tensors_of
from autoslim_cli.network.table import Channels, dropped, features, ranges
from autoslim_cli.slimming.supernet import SupernetLayer

_CONVOLUTIONS: dict[type, Callable[..., Tensor]] = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}


def is_linear(layer: SupernetLayer) -> bool:
    """Tell whether a layer is linear in each input channel, and every output takes from every input.

    Subclasses, hooks and a forward of its own may do anything to inputs or weights.
    """
    row, module = layer.row, layer.module
    if "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks:
        return False
    plain = type(module) is nn.Linear or (type(module) in _CONVOLUTIONS and module.padding_mode == "zeros")
    return plain and row.groups == 1 and not row.group_inputs


def saves(layer: SupernetLayer, before: Channels, after: Channels) -> bool:
    """Tell whether few enough input channels go from `before` to `after`, and no output channel comes."""
    row = layer.row
    gone = features(row.inputs, before) - features(row.inputs, after)
    return 0 < 2 * gone <= features(row.inputs, after) and all(after[unit] <= before[unit] for unit in row.units)


def cost(layer: SupernetLayer, before: Channels, after: Channels) -> int:
    """Return the multiply-adds for one image of `subtracted`."""
    row = layer.row
    gone = features(row.inputs, before) - features(row.inputs, after)
    return row.positions * row.kernel * gone * features(row.outputs, after)


def subtracted(
    layer: SupernetLayer, inputs: Tensor, outputs: Tensor, dim: int, before: Channels, after: Channels
) -> Tensor:
    """Return a layer's outputs at `after` from its `inputs` at `before` and its `outputs` of these, cut to `after`.

    `dim` is the dimension of `inputs` that counts channels: inputs of a convolution are (images, channels, height,
    width), of a linear layer (images, ..., features).
    """
    row, module = layer.row, layer.module
    gone = cut(inputs, {dim: dropped(row.inputs, before, before, after)})
    columns = {0: ranges(row.outputs, layer.full, after), 1: dropped(row.inputs, layer.full, before, after)}
    weight = cut(tensors_of(module)["weight"], columns).neg()
    if type(module) is nn.Linear:
        less: Tensor = F.linear(gone, weight)
    else:
        less = _CONVOLUTIONS[type(module)](gone, weight, None, module.stride, module.padding, module.dilation)
    return less.add_(outputs)
