"""Say what layers with weights do to channels: they open units, keep them, or follow them."""

import math
from typing import TYPE_CHECKING, Any

from torch import fx, nn

from autoslim_cli.network.open_units import OpenLayout, OpenRow, OpenSegment, Tagged, fixed, pin, size, split
from autoslim_cli.network.rules.nodes import KNOWN_TENSORS, is_layer, source_of, unknown

if TYPE_CHECKING:
    from autoslim_cli.network.trace import Walk


def convolution(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Open a unit; a grouped convolution keeps its input's units instead, in whole groups."""
    module: Any = walk.called(node)
    inputs = _inputs(walk, node, 1, module.in_channels)
    transposed = isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))
    counted = source_of(node) if transposed else node
    row = OpenRow(
        kind="transposed" if transposed else "conv",
        inputs=inputs,
        outputs=(),
        kernel=math.prod(module.kernel_size),
        positions=math.prod(walk.shape(counted)[2:]),
        bias=module.bias is not None,
        extra=_extra(module),
    )
    layer = str(node.target)
    if module.groups == 1:
        row.outputs = walk.open(module.out_channels, layer)
        walk.mixing.add(node)
    elif module.groups in walk.fixed_groups and 1 < module.groups < module.in_channels and not transposed:
        parts = split(inputs, module.groups, layer)
        if parts is None:
            pin(inputs, f"the groups of {layer} do not follow its channels")
            parts = [fixed(module.in_channels // module.groups)] * module.groups
        row.groups = module.groups
        row.inputs = tuple(segment for part in parts for segment in part)
        row.outputs = walk.open(module.out_channels // module.groups, layer) * module.groups
        walk.mixing.add(node)
    else:
        row.group_inputs = module.in_channels // module.groups
        row.outputs = _whole_groups(inputs, row.group_inputs, module.out_channels // module.groups, layer)
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
        return fixed(size(inputs) // group_inputs * group_outputs)
    outputs = []
    for segment in inputs:
        ratio = 1
        if segment.unit is not None:
            segment.unit.granule = math.lcm(segment.unit.granule, group_inputs)
            segment.unit.layers.append(layer)
            ratio = group_outputs // group_inputs
        base = segment.base // group_inputs * group_outputs
        outputs.append(OpenSegment(segment.unit, base, segment.multiplicity * ratio))
    return tuple(outputs)


def linear(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Open a unit in the last dimension."""
    module: Any = walk.called(node)
    last = len(walk.shape(node)) - 1
    row = OpenRow(
        kind="linear",
        inputs=_inputs(walk, node, last, module.in_features),
        outputs=walk.open(module.out_features, str(node.target)),
        positions=math.prod(walk.shape(node)[1:-1]),
        bias=module.bias is not None,
        extra=_extra(module),
    )
    walk.mixing.add(node)
    return Tagged(last, walk.enter(node, row).outputs)


def _extra(module: nn.Module) -> int:
    """Return how many parameters a subclass of a layer adds for each output channel."""
    added = [p for name, p in module._parameters.items() if name not in KNOWN_TENSORS and p is not None]
    return sum(p.numel() // p.shape[0] for p in added)


def _inputs(walk: "Walk", node: fx.Node, dim: int, count: int) -> OpenLayout:
    """Return the layout of a layer's input in one dimension; channels elsewhere are pinned."""
    tag = walk.tag(source_of(node))
    if tag and (tag.dim != dim or tag.outer is not None):
        pin(tag.layout, f"{node.target} mixes another dimension than its channels")
        walk.mixing.add(node)
        tag = None
    return tag.layout if tag else fixed(count)


def batch_norm(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Keep the layout; the layer's own tensors follow it."""
    module: Any = walk.called(node)
    layout = _inputs(walk, node, 1, module.num_features)
    walk.enter(node, _follower("norm", module, layout))
    return Tagged(1, layout)


def layer_norm(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Keep the layout of what is normalised over its channels alone, those in use."""
    module: Any = walk.called(node)
    tag = walk.tag(source_of(node))
    last = len(walk.shape(node)) - 1
    dim = (
        tag.dim if tag and type(module) is not nn.LayerNorm else last
    )  # subclasses normalise the second dimension, too
    if len(module.normalized_shape) != 1 or (tag and walk.shape(node)[dim] != module.normalized_shape[0]):
        return unknown(walk, node)
    layout = _inputs(walk, node, dim, module.normalized_shape[0])
    walk.enter(node, _follower("layer_norm", module, layout))
    walk.mixing.add(node)
    return Tagged(dim, layout) if tag else None


def group_norm(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Keep the size of the groups that are normalised together; one group stays one."""
    module: Any = walk.called(node)
    layout = _inputs(walk, node, 1, module.num_channels)
    row = _follower("group_norm", module, layout)
    if module.num_groups == 1:
        walk.mixing.add(node)
    else:
        row.group_inputs = module.num_channels // module.num_groups
        row.outputs = row.inputs = _whole_groups(layout, row.group_inputs, row.group_inputs, str(node.target))
    walk.enter(node, row)
    return Tagged(1, row.outputs)


def prelu(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Keep the layout; slopes of single channels follow it."""
    module: Any = walk.called(node)
    if module.num_parameters > 1:
        layout = _inputs(walk, node, 1, module.num_parameters)
        walk.enter(node, OpenRow("prelu", layout, layout, bias=False))
    return walk.tag(source_of(node))


def _follower(kind: str, module: Any, layout: OpenLayout) -> OpenRow:
    """Return the row of a layer that has a weight and a bias for each of its input's channels, or none."""
    return OpenRow(kind, layout, layout, weight=module.weight is not None, bias=module.bias is not None)


def bare_parameter(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Open a unit for a tensor with one value per channel (layer scale); what it meets decides it."""
    name = str(node.target)
    owner = walk.module.get_submodule(name.rpartition(".")[0])
    wide = [dim for dim, length in enumerate(walk.shape(node)) if length > 1] if walk.is_tensor(node) else []
    tensor = getattr(owner, name.rpartition(".")[2])
    if len(wide) != 1 or is_layer(owner) or not tensor.is_floating_point():
        return None
    layout = walk.open(walk.shape(node)[wide[0]], None)
    is_weight = name.rpartition(".")[2] in owner._parameters
    row = OpenRow("parameter", layout, layout, weight=is_weight, bias=False, axis=wide[0])
    return Tagged(wide[0], walk.enter(node, row).outputs)
