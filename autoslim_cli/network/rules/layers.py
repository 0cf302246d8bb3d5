"""Say what layers with weights do to channels: they open units, keep them, or follow them."""

import math
from dataclasses import replace

from torch import nn

from autoslim_cli.network.facts import Enter, Fact, Found, Group, Mixes, Pin
from autoslim_cli.network.layouts import OpenLayout, OpenRow, OpenSegment, Tagged, fixed, size
from autoslim_cli.network.rules.known_layers import KNOWN_TENSORS, is_layer
from autoslim_cli.network.rules.not_understood import unknown
from autoslim_cli.network.rules.operation import Operation
from autoslim_cli.network.rules.splitting import split
from autoslim_cli.network.table import Kind

Laid = tuple[OpenLayout, tuple[Fact, ...]]
"""A layout, and what must be so for it."""


def convolution(operation: Operation) -> Found:
    """Open a unit; a grouped convolution keeps its input's units instead, in whole groups."""
    module, name = operation.layer, operation.where
    inputs, facts = _inputs(operation, 1, module.in_channels)
    transposed = isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))
    row = OpenRow(
        kind="transposed" if transposed else "conv",
        inputs=inputs,
        outputs=(),
        kernel=math.prod(module.kernel_size),
        positions=_positions(operation, operation.before if transposed else operation.after, 1),
        bias=module.bias is not None,
        extra=_extra(module),
    )
    more: tuple[Fact, ...]
    if module.groups == 1:
        row, more = replace(row, outputs=operation.open(module.out_channels, name)), (Mixes(),)
    elif module.groups in operation.fixed_groups and 1 < module.groups < module.in_channels and not transposed:
        row, more = _fixed_number_of_groups(operation, row)
    else:
        group_inputs = module.in_channels // module.groups
        outputs, more = _whole_groups(inputs, group_inputs, module.out_channels // module.groups, name)
        row = replace(row, group_inputs=group_inputs, outputs=outputs)
    return Found(Tagged(1, row.outputs), (*facts, *more, Enter(row)))


def _fixed_number_of_groups(operation: Operation, row: OpenRow) -> tuple[OpenRow, tuple[Fact, ...]]:
    """Cut a grouped convolution's input into its groups, which all slim alike; open a unit for the output of each."""
    module, name = operation.layer, operation.where
    parts = split(row.inputs, module.groups, name)
    if parts is None:
        layouts = [fixed(module.in_channels // module.groups)] * module.groups
        facts: tuple[Fact, ...] = (Pin(row.inputs, f"the groups of {name} do not follow its channels"),)
    else:
        layouts, facts = parts
    inputs = tuple(segment for layout in layouts for segment in layout)
    outputs = operation.open(module.out_channels // module.groups, name) * module.groups
    return replace(row, groups=module.groups, inputs=inputs, outputs=outputs), (*facts, Mixes())


def _whole_groups(inputs: OpenLayout, group_inputs: int, group_outputs: int, layer: str) -> Laid:
    """Lay out a grouped convolution's output: it has as many groups as its input, and no fraction of one."""

    def fits(segment: OpenSegment) -> bool:
        whole = segment.base % group_inputs == 0
        return whole and (segment.unit is None or group_inputs == 1 or _prefix_stays_prefix(segment))

    def _prefix_stays_prefix(segment: OpenSegment) -> bool:
        return segment.multiplicity == 1 and group_outputs % group_inputs == 0

    if not all(map(fits, inputs)):
        reason = f"the groups of {layer} do not follow its channels"
        return fixed(size(inputs) // group_inputs * group_outputs), (Pin(inputs, reason),)
    ratio = group_outputs // group_inputs
    outputs = tuple(
        OpenSegment(s.unit, s.base // group_inputs * group_outputs, s.multiplicity * (ratio if s.unit else 1))
        for s in inputs
    )
    return outputs, tuple(Group(segment.unit, group_inputs, layer) for segment in inputs if segment.unit)


def linear(operation: Operation) -> Found:
    """Open a unit in the last dimension."""
    module, last = operation.layer, len(operation.after) - 1
    inputs, facts = _inputs(operation, last, module.in_features)
    row = OpenRow(
        kind="linear",
        inputs=inputs,
        outputs=operation.open(module.out_features, operation.where),
        positions=_positions(operation, operation.after, last),
        bias=module.bias is not None,
        extra=_extra(module),
    )
    return Found(Tagged(last, row.outputs), (*facts, Mixes(), Enter(row)))


def _positions(operation: Operation, shape: tuple[int, ...], channels: int) -> int:
    """Return the positions of one image in a tensor of two, whose channels lie in one dimension.

    Code may put them anywhere: images joined one behind the other, or folded with groups or rows into the first. What
    does not depend on images counts as it is; so does an odd number, of a mean over the images, or of their sizes.
    """
    whole = math.prod(shape[:channels]) * math.prod(shape[channels + 1 :])
    return whole // 2 if operation.of_images and whole % 2 == 0 else whole


def _extra(module: nn.Module) -> int:
    """Return how many parameters a subclass of a layer adds for each output channel."""
    added = [p for name, p in module._parameters.items() if name not in KNOWN_TENSORS and p is not None]
    return sum(p.numel() // p.shape[0] for p in added)


def _inputs(operation: Operation, dim: int, count: int) -> Laid:
    """Return the layout of a layer's input in one dimension; channels elsewhere are pinned."""
    tag = operation.tag
    if tag is None:
        return fixed(count), ()
    if tag.dim == dim and tag.outer is None:
        return tag.layout, ()
    reason = f"{operation.where} mixes another dimension than its channels"
    return fixed(count), (Pin(tag.layout, reason), Mixes())


def batch_norm(operation: Operation) -> Found:
    """Keep the layout; the layer's own tensors follow it."""
    module = operation.layer
    layout, facts = _inputs(operation, 1, module.num_features)
    return Found(Tagged(1, layout), (*facts, Enter(_follower("norm", module, layout))))


def layer_norm(operation: Operation) -> Found:
    """Keep the layout of what is normalised over its channels alone, those in use."""
    module, tag, after = operation.layer, operation.tag, operation.after
    # Subclasses normalise the second dimension, too.
    dim = tag.dim if tag and type(module) is not nn.LayerNorm else len(after) - 1
    if len(module.normalized_shape) != 1 or (tag and after[dim] != module.normalized_shape[0]):
        return unknown(operation)
    layout, facts = _inputs(operation, dim, module.normalized_shape[0])
    row = _follower("layer_norm", module, layout)
    return Found(Tagged(dim, layout) if tag else None, (*facts, Enter(row), Mixes()))


def group_norm(operation: Operation) -> Found:
    """Keep the size of the groups that are normalised together; one group stays one."""
    module = operation.layer
    layout, facts = _inputs(operation, 1, module.num_channels)
    row = _follower("group_norm", module, layout)
    more: tuple[Fact, ...] = (Mixes(),)
    if module.num_groups > 1:
        group = module.num_channels // module.num_groups
        layout, more = _whole_groups(layout, group, group, operation.where)
        row = replace(row, group_inputs=group, inputs=layout, outputs=layout)
    return Found(Tagged(1, layout), (*facts, *more, Enter(row)))


def prelu(operation: Operation) -> Found:
    """Keep the layout; slopes of single channels follow it."""
    slopes = operation.layer.num_parameters
    if slopes == 1:
        return Found(operation.tag)
    layout, facts = _inputs(operation, 1, slopes)
    return Found(operation.tag, (*facts, Enter(OpenRow("prelu", layout, layout, bias=False))))


def _follower(kind: Kind, module: nn.Module, layout: OpenLayout) -> OpenRow:
    """Return the row of a layer that has a weight and a bias for each of its input's channels, or none."""
    return OpenRow(kind, layout, layout, weight=module.weight is not None, bias=module.bias is not None)


def bare_parameter(operation: Operation) -> Found:
    """Open a unit for a tensor with one value per channel (layer scale); what it meets decides it."""
    owner, name = operation.layer, str(operation.node.target).rpartition(".")[2]
    wide = [dim for dim, length in enumerate(operation.after) if length > 1]
    if len(wide) != 1 or is_layer(owner) or not getattr(owner, name).is_floating_point():
        return Found()
    (dim,) = wide
    layout = operation.open(operation.after[dim], None)
    row = OpenRow("parameter", layout, layout, weight=name in owner._parameters, bias=False, axis=dim)
    return Found(Tagged(dim, layout), (Enter(row),))
