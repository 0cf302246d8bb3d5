"""Say what each operation does to the channels: tables from operation to rule.

A rule is a function of an operation: from where the channels of its inputs lie to where those of its output lie, and
facts. It changes nothing. An operation without a rule pins what it touches.
"""

import operator
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import fx, nn

from autoslim_cli.network.rules.dimensions import flatten, permute, reshape, squeeze, take_item, transpose, unsqueeze
from autoslim_cli.network.rules.elementwise import (
    combine,
    keep,
    keep_behind,
    normalize,
    pad,
    reduce,
    reduce_norm,
    soft_max,
)
from autoslim_cli.network.rules.known_layers import LAYERS, is_layer
from autoslim_cli.network.rules.layers import (
    bare_parameter,
    batch_norm,
    convolution,
    group_norm,
    layer_norm,
    linear,
    prelu,
)
from autoslim_cli.network.rules.not_understood import unknown
from autoslim_cli.network.rules.operation import Operation, Rule, Value
from autoslim_cli.network.rules.parts import chunk, concat, shuffle
from autoslim_cli.network.rules.pixels import pixel_shuffle, pixel_unshuffle

__all__ = ["LAYERS", "Operation", "Value", "find", "fixed_groups", "is_layer"]


def find(operation: Operation) -> Rule:
    """Return the rule for an operation."""
    node = operation.node
    if node.op == "get_attr":
        return bare_parameter
    if node.op == "call_module":
        kinds = type(operation.layer).__mro__
        return next((rule for kind in kinds if (rule := LAYER_RULES.get(kind))), MODULES.get(kinds[0], unknown))
    if node.op == "call_function":
        return FUNCTIONS.get(node.target, NAMED_FUNCTIONS.get(getattr(node.target, "__name__", ""), unknown))
    return METHODS.get(str(node.target), unknown)


def fixed_groups(graph: fx.Graph) -> frozenset[int]:
    """Return the numbers of parts that reshapes in the code cut channels into: grouped convolutions keep these."""
    numbers: set[int] = set()
    for node in graph.nodes:
        is_reshape = (node.op == "call_method" and METHODS.get(node.target) is reshape) or (
            node.op == "call_function" and FUNCTIONS.get(node.target) is reshape
        )
        if is_reshape:
            numbers |= {n for n in _integers(node.args[1:]) if n > 1}
    return frozenset(numbers)


def _integers(values: Iterable[object]) -> Iterable[int]:
    """Yield the integers in nested sequences."""
    for value in values:
        if isinstance(value, int):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _integers(value)


LAYER_RULES: dict[type, Rule] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), convolution),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), convolution),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), batch_norm),
    nn.Linear: linear,
    nn.LayerNorm: layer_norm,
    nn.GroupNorm: group_norm,
    nn.PReLU: prelu,
}

MODULES: dict[type, Rule] = {
    nn.Flatten: flatten,
    nn.ChannelShuffle: shuffle,
    nn.PixelShuffle: pixel_shuffle,
    nn.PixelUnshuffle: pixel_unshuffle,
    **dict.fromkeys((nn.Softmax, nn.LogSoftmax), soft_max),
    **dict.fromkeys(
        (
            *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
            *(nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Identity),
            *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
        ),
        keep,
    ),
    **dict.fromkeys(
        (
            *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
            *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
            *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
            *(nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, nn.ZeroPad2d),
            *(nn.ReflectionPad2d, nn.ReplicationPad2d, nn.ConstantPad2d),
        ),
        keep_behind,
    ),
}

FUNCTIONS: dict[object, Rule] = {
    torch.cat: concat,
    torch.concat: concat,
    torch.chunk: chunk,
    torch.split: chunk,
    torch.flatten: flatten,
    torch.reshape: reshape,
    torch.permute: permute,
    torch.transpose: transpose,
    torch.unsqueeze: unsqueeze,
    torch.squeeze: squeeze,
    operator.getitem: take_item,
    F.pad: pad,
    F.normalize: normalize,
    F.pixel_shuffle: pixel_shuffle,
    F.pixel_unshuffle: pixel_unshuffle,
    torch.norm: reduce_norm,
    torch.linalg.vector_norm: reduce_norm,
    **dict.fromkeys((torch.mean, torch.sum, torch.amax, torch.var, torch.std), reduce),
    **dict.fromkeys((F.softmax, torch.softmax, F.log_softmax), soft_max),
    **dict.fromkeys(
        (
            *(
                operator.add,
                operator.sub,
                operator.mul,
                operator.truediv,
                operator.pow,
                torch.add,
                torch.sub,
                torch.mul,
            ),
            *(torch.div, torch.pow, torch.addcmul, torch.maximum, torch.minimum, torch.where, torch.lerp),
        ),
        combine,
    ),
    **dict.fromkeys(
        (
            *(F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid, F.hardtanh),
            *(F.dropout, F.dropout2d, F.softplus, F.sigmoid, F.tanh),
            *(torch.relu, torch.sigmoid, torch.tanh, torch.clamp, torch.square, torch.sqrt, torch.rsqrt, torch.exp),
            *(torch.abs, operator.neg),
        ),
        keep,
    ),
    **dict.fromkeys(
        (F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d, F.interpolate), keep_behind
    ),
}

NAMED_FUNCTIONS: dict[str, Rule] = {
    # torchvision's, named so that this module need not import torchvision; boolean-dispatched pooling has wrappers.
    "stochastic_depth": keep,
    **dict.fromkeys(("max_pool2d", "boolean_dispatch", "adaptive_max_pool2d"), keep_behind),
}

METHODS: dict[str, Rule] = {
    **dict.fromkeys(("add", "sub", "mul", "div", "pow", "addcmul"), combine),
    **dict.fromkeys(
        ("relu", "sigmoid", "tanh", "clamp", "contiguous", "clone", "float", "detach", "to", "type_as"), keep
    ),
    **dict.fromkeys(("abs", "exp", "sqrt", "rsqrt", "square"), keep),
    **dict.fromkeys(("mean", "sum", "amax", "var", "std"), reduce),
    **dict.fromkeys(("view", "reshape"), reshape),
    **dict.fromkeys(("chunk", "split"), chunk),
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), transpose),
    "softmax": soft_max,
    "norm": reduce_norm,
    "flatten": flatten,
    "permute": permute,
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
}
