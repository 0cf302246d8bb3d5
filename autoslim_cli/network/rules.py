"""Say what each operation does to the channels: tables from operation to rule.

A rule looks at the layouts of a node's inputs and returns the layout of its output, None for a tensor whose shape
never changes. An operation without a rule pins what it touches.
"""

import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from autoslim_cli.network.open_units import OpenLayout, OpenRow, OpenSegment, Tagged, fixed, merge, pin

if TYPE_CHECKING:
    from autoslim_cli.network.trace import Walk

Rule = Callable[["Walk", fx.Node], Tagged | None]


def find(walk: "Walk", node: fx.Node) -> Rule:
    """Return the rule for a node's operation."""
    if node.op == "call_module":
        return MODULES.get(type(walk.called(node)), unknown)
    if node.op == "call_function":
        return FUNCTIONS.get(node.target, NAMED_FUNCTIONS.get(getattr(node.target, "__name__", ""), unknown))
    return METHODS.get(str(node.target), unknown)


# -- layers -------------------------------------------------------------------------------------------------------


def convolution(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Open a unit; a grouped convolution keeps its input's units instead, in whole groups."""
    module: Any = walk.called(node)
    tag = walk.tag(_source(node))
    if module.padding_mode != "zeros" or (tag and tag.dim != 1):
        return unknown(walk, node)
    inputs = tag.layout if tag else fixed(module.in_channels)
    row = OpenRow(module, "conv", inputs, (), positions=math.prod(walk.shape(node)[2:]))
    if module.groups == 1:
        row.outputs = walk.open(str(node.target), module.out_channels)
        walk.mixing.add(node)
    else:
        row.group_inputs = module.in_channels // module.groups
        row.outputs = _whole_groups(inputs, row.group_inputs, module.out_channels // module.groups, str(node.target))
    return Tagged(1, walk.enter(node, row).outputs)


def _whole_groups(inputs: OpenLayout, group_inputs: int, group_outputs: int, layer: str) -> OpenLayout:
    """Lay out a grouped convolution's output: it has as many groups as its input, and no fraction of one."""

    def fits(segment: OpenSegment) -> bool:
        whole = segment.base % group_inputs == 0
        return whole and (segment.unit is None or group_inputs == 1 or _prefix_stays_prefix(segment))

    def _prefix_stays_prefix(segment: OpenSegment) -> bool:
        return segment.multiplicity == 1 and group_outputs % group_inputs == 0

    if not all(map(fits, inputs)):
        pin(inputs, f"the groups of {layer} do not follow its channels")
        return fixed(sum(segment.base for segment in inputs) // group_inputs * group_outputs)
    outputs = []
    for segment in inputs:
        if segment.unit is not None:
            root = segment.unit.root()
            root.granule = math.lcm(root.granule, group_inputs)
            root.layers.append(layer)
        ratio = group_outputs // group_inputs if segment.unit is not None else 1
        outputs.append(
            OpenSegment(segment.unit, segment.base // group_inputs * group_outputs, segment.multiplicity * ratio)
        )
    return tuple(outputs)


def linear(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Open a unit in the last dimension."""
    module: Any = walk.called(node)
    source = _source(node)
    tag, last = walk.tag(source), len(walk.shape(source)) - 1
    if tag and tag.dim != last:
        return unknown(walk, node)
    inputs = tag.layout if tag else fixed(module.in_features)
    row = OpenRow(module, "linear", inputs, walk.open(str(node.target), module.out_features))
    row.positions = math.prod(walk.shape(node)[1:-1])
    walk.mixing.add(node)
    return Tagged(last, walk.enter(node, row).outputs)


def batch_norm(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Keep the layout; the layer's own tensors follow it."""
    module: Any = walk.called(node)
    tag = walk.tag(_source(node))
    if tag and tag.dim != 1:
        return unknown(walk, node)
    layout = tag.layout if tag else fixed(module.num_features)
    walk.enter(node, OpenRow(module, "norm", layout, layout))
    return tag


# -- operations without weights -----------------------------------------------------------------------------------


def keep(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Keep the layout: each output channel comes from the same input channel."""
    return walk.tag(_source(node))


def combine(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Merge the units of an elementwise operation's operands, with broadcasting."""
    operands = node.all_input_nodes
    tagged = [n for n in operands if walk.tags.get(n)]
    if not tagged:
        return None
    rank = len(walk.shape(node))
    result: Tagged | None = None
    for source in tagged:
        tag = walk.tag(source)
        assert tag is not None
        tag = Tagged(tag.dim + rank - len(walk.shape(source)), tag.layout)
        if walk.shape(node)[tag.dim] != sum(segment.base for segment in tag.layout):
            pin(tag.layout, f"{node.name} broadcasts it over channels")
        elif result is None:
            result = tag
        elif result.dim == tag.dim:
            merge(result.layout, tag.layout, node.name)
        else:
            pin(result.layout + tag.layout, f"{node.name} combines different channel layouts")
    for source in operands:
        if result and not walk.tags.get(source) and walk.is_tensor(source):
            at = result.dim - rank + len(walk.shape(source))
            if at >= 0 and walk.shape(source)[at] != 1:
                pin(result.layout, f"{node.name} combines it with a tensor of fixed width")
    return result


def concat(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Join the layouts along channels; along any other dimension, merge them."""
    sources = node.args[0] if node.args else node.kwargs["tensors"]
    if not isinstance(sources, (tuple, list)) or not all(isinstance(n, fx.Node) for n in sources):
        return unknown(walk, node)
    nodes: list[fx.Node] = [n for n in sources if isinstance(n, fx.Node)]
    dims = {tag.dim for n in nodes if (tag := walk.tag(n))}
    if not dims:
        return None
    rank = len(walk.shape(node))
    axis = _argument(node, 1, "dim", 0)
    if len(dims) > 1 or not isinstance(axis, int):
        return unknown(walk, node)
    dim = dims.pop()
    if axis % rank == dim:
        parts = [tag.layout if (tag := walk.tag(n)) else fixed(walk.shape(n)[dim]) for n in nodes]
        return Tagged(dim, tuple(segment for part in parts for segment in part))
    return combine(walk, node)


def flatten(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Multiply: a channel becomes as many neighbouring features as it had positions."""
    source = _source(node)
    tag, shape = walk.tag(source), walk.shape(source)
    if tag is None:
        return None
    if node.op == "call_module":
        module: Any = walk.called(node)
        start, end = module.start_dim, module.end_dim
    else:
        start, end = _argument(node, 1, "start_dim", 0), _argument(node, 2, "end_dim", -1)
    start, end = start % len(shape), end % len(shape)
    if tag.dim < start:
        return tag
    if tag.dim > end:
        return Tagged(tag.dim - (end - start), tag.layout)
    return _flattened(walk, node, tag, shape, start, end)


def reshape(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Understand `view(n, -1)`: a flatten whose sizes are not written into the code."""
    source = _source(node)
    tag, before, after = walk.tag(source), walk.shape(source), walk.shape(node)
    if tag is None:
        return None
    sizes = node.args[1:]
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = tuple(sizes[0])
    dim = tag.dim
    flat = len(after) == dim + 1 and before[:dim] == after[:dim] and len(sizes) == len(after)
    if not flat or (isinstance(sizes[dim], int) and sizes[dim] != -1):
        return unknown(walk, node)
    return _flattened(walk, node, tag, before, dim, len(before) - 1)


def _flattened(walk: "Walk", node: fx.Node, tag: Tagged, shape: tuple[int, ...], start: int, end: int) -> Tagged | None:
    """Return the layout after dimensions start..end became one; channels must be the outermost of them."""
    if tag.dim != start and math.prod(shape[start : tag.dim]) != 1:
        return unknown(walk, node)
    inner = math.prod(shape[tag.dim + 1 : end + 1])
    return Tagged(start, tuple(OpenSegment(s.unit, s.base * inner, s.multiplicity * inner) for s in tag.layout))


def reduce(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Drop the reduced dimensions; over channels the result has none, whatever their number."""
    source = _source(node)
    tag, shape = walk.tag(source), walk.shape(source)
    if tag is None:
        return None
    dims = _argument(node, 1, "dim", None)
    if dims is None:
        dims = tuple(range(len(shape)))
    reduced = {d % len(shape) for d in ((dims,) if isinstance(dims, int) else dims)}
    if tag.dim in reduced:
        walk.mixing.add(node)
        return None
    if walk.shape(node) == shape or len(walk.shape(node)) == len(shape):
        return tag
    return Tagged(tag.dim - sum(d < tag.dim for d in reduced), tag.layout)


def permute(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Follow the channels to their new dimension."""
    tag = walk.tag(_source(node))
    if tag is None:
        return None
    order = node.args[1:]
    if len(order) == 1 and isinstance(order[0], (tuple, list)):
        order = tuple(order[0])
    if len(order) != len(walk.shape(node)) or not all(isinstance(d, int) for d in order):
        return unknown(walk, node)
    return Tagged([d % len(order) for d in order if isinstance(d, int)].index(tag.dim), tag.layout)


def take_item(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Keep the layout if the index leaves channels alone, as x[:, :, 1:] does."""
    source, index = node.args[0], node.args[1]
    if not isinstance(source, fx.Node) or walk.tags.get(source) is None:
        return None
    tag = walk.tags[source]
    parts = index if isinstance(index, tuple) else (index,)
    whole = all(isinstance(part, slice) for part in parts)
    if tag and whole and (tag.dim >= len(parts) or parts[tag.dim] == slice(None)):
        return tag
    return unknown(walk, node)


def unknown(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Pin everything that the operation touches; its output is of fixed shape."""
    what = type(walk.called(node)).__name__ if node.op == "call_module" else _name(node)
    reason = f"{what} at {node.target if node.op == 'call_module' else node.name} is not understood"
    touched = [tag for source in node.all_input_nodes if (tag := walk.tags.get(source))]
    for tag in touched:
        pin(tag.layout, reason)
    if touched:
        walk.notes.append(reason)
    walk.mixing.add(node)
    return None


def _name(node: fx.Node) -> str:
    """Return the readable name of a function or method."""
    return str(getattr(node.target, "__name__", node.target))


def _source(node: fx.Node) -> fx.Node:
    """Return a node's first input."""
    return node.all_input_nodes[0]


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    """Return an argument given by position or by name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


MODULES: dict[type[nn.Module], Rule] = {
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
    nn.Conv3d: convolution,
    nn.Linear: linear,
    nn.BatchNorm1d: batch_norm,
    nn.BatchNorm2d: batch_norm,
    nn.BatchNorm3d: batch_norm,
    nn.Flatten: flatten,
    **dict.fromkeys(
        (
            *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
            *(nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Identity),
            *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
            *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
            *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
            *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
            *(nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, nn.ZeroPad2d),
        ),
        keep,
    ),
}

FUNCTIONS: dict[Any, Rule] = {
    torch.cat: concat,
    torch.concat: concat,
    torch.flatten: flatten,
    torch.reshape: reshape,
    torch.mean: reduce,
    torch.sum: reduce,
    torch.amax: reduce,
    torch.permute: permute,
    operator.getitem: take_item,
    **dict.fromkeys(
        (operator.add, operator.sub, operator.mul, operator.truediv, torch.add, torch.sub, torch.mul, torch.div),
        combine,
    ),
    **dict.fromkeys(
        (
            *(F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid, F.hardtanh),
            *(F.dropout, F.dropout2d, F.softplus, F.sigmoid, F.tanh, F.interpolate),
            *(F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d),
            *(torch.relu, torch.sigmoid, torch.tanh, torch.clamp, operator.neg),
        ),
        keep,
    ),
}

NAMED_FUNCTIONS: dict[str, Rule] = {
    # torchvision's, named so that this module need not import torchvision; boolean-dispatched pooling has wrappers.
    **dict.fromkeys(("stochastic_depth", "max_pool2d", "boolean_dispatch", "adaptive_max_pool2d"), keep),
}

METHODS: dict[str, Rule] = {
    **dict.fromkeys(("add", "sub", "mul", "div"), combine),
    **dict.fromkeys(("relu", "sigmoid", "tanh", "clamp", "contiguous", "clone", "float", "detach"), keep),
    **dict.fromkeys(("mean", "sum", "amax"), reduce),
    **dict.fromkeys(("view", "reshape"), reshape),
    "flatten": flatten,
    "permute": permute,
}
