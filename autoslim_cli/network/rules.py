"""Say what each operation does to the channels: tables from operation to rule.

A rule looks at the layouts of a node's inputs and returns the layout of its output, None for a tensor whose shape
never changes. An operation without a rule pins what it touches.
"""

import math
import operator
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from autoslim_cli.errors import UsageError
from autoslim_cli.network.open_units import (
    OpenLayout,
    OpenRow,
    OpenSegment,
    Tagged,
    fixed,
    merge,
    pin,
    scaled,
    size,
    split,
)

if TYPE_CHECKING:
    from autoslim_cli.network.trace import Walk

Rule = Callable[["Walk", fx.Node], Tagged | None]


def find(walk: "Walk", node: fx.Node) -> Rule:
    """Return the rule for a node's operation."""
    if node.op == "call_module":
        kinds = type(walk.called(node)).__mro__
        return next((rule for kind in kinds if (rule := LAYERS.get(kind))), MODULES.get(kinds[0], unknown))
    if node.op == "call_function":
        return FUNCTIONS.get(node.target, NAMED_FUNCTIONS.get(getattr(node.target, "__name__", ""), unknown))
    return METHODS.get(str(node.target), unknown)


def is_layer(module: nn.Module) -> bool:
    """Tell whether a module is a known layer, or a subclass of one that adds no tensors but one value per channel."""
    kind = next((kind for kind in type(module).__mro__ if kind in LAYERS), None)
    if kind is None or any(True for child in module.children() for _ in child.parameters()):
        return False
    weight = module._parameters.get("weight")
    own = {**module._parameters, **module._buffers}
    extra = [tensor for name, tensor in own.items() if name not in KNOWN_TENSORS and tensor is not None]
    return all(weight is not None and tensor.shape[:1] == weight.shape[:1] for tensor in extra)


KNOWN_TENSORS = frozenset(("weight", "bias", "running_mean", "running_var", "num_batches_tracked"))


# -- layers -------------------------------------------------------------------------------------------------------


def convolution(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Open a unit; a grouped convolution keeps its input's units instead, in whole groups."""
    module: Any = walk.called(node)
    inputs = _inputs(walk, node, 1, module.in_channels)
    transposed = isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))
    counted = _source(node) if transposed else node
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
    tag = walk.tag(_source(node))
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
    tag = walk.tag(_source(node))
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
    return walk.tag(_source(node))


def _follower(kind: str, module: Any, layout: OpenLayout) -> OpenRow:
    """Return the row of a layer that has a weight and a bias for each of its input's channels, or none."""
    return OpenRow(kind, layout, layout, weight=module.weight is not None, bias=module.bias is not None)


def bare_parameter(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Open a unit for a tensor with one value per channel (layer scale); what it meets decides it."""
    name = str(node.target)
    owner = walk.module.get_submodule(name.rpartition(".")[0])
    wide = [dim for dim, length in enumerate(walk.shape(node)) if length > 1] if walk.is_tensor(node) else []
    if len(wide) != 1 or is_layer(owner):
        return None
    layout = walk.open(walk.shape(node)[wide[0]], None)
    is_weight = name.rpartition(".")[2] in owner._parameters
    row = OpenRow("parameter", layout, layout, weight=is_weight, bias=False, axis=wide[0])
    return Tagged(wide[0], walk.enter(node, row).outputs)


# -- operations without weights -----------------------------------------------------------------------------------


def keep(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Keep the layout: each output channel comes from the same input channel."""
    tag = walk.tag(_source(node))
    if tag and walk.is_tensor(node) and len(walk.shape(node)) != len(walk.shape(_source(node))):
        return unknown(walk, node)
    return tag


def combine(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Merge the units of an elementwise operation's operands, with broadcasting."""
    rank = len(walk.shape(node))
    result: Tagged | None = None
    for source in (n for n in node.all_input_nodes if walk.is_tensor(n)):
        tag = walk.tag(source)
        if tag is None:
            continue
        shift = rank - len(walk.shape(source))
        tag = Tagged(tag.dim + shift, tag.layout, tag.count, None if tag.outer is None else tag.outer + shift)
        if walk.shape(node)[tag.dim] != size(tag.layout):
            pin(tag.layout, f"{node.name} broadcasts it over channels")
        elif result is None:
            result = tag
        elif (result.dim, result.count, result.outer) == (tag.dim, tag.count, tag.outer):
            merge(result.layout, tag.layout, node.name)
        else:
            pin(result.layout + tag.layout, f"{node.name} combines different channel layouts")
    for source in node.all_input_nodes:
        if result and walk.is_tensor(source) and not walk.tag(source):
            at = result.dim - rank + len(walk.shape(source))
            if at >= 0 and walk.shape(source)[at] != 1:
                pin(result.layout, f"{node.name} combines it with a tensor of fixed width")
    return result


def concat(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Join the layouts along channels; along any other dimension, merge them."""
    sources = node.args[0] if node.args else node.kwargs["tensors"]
    if not isinstance(sources, (tuple, list)) or not all(isinstance(n, fx.Node) for n in sources):
        return unknown(walk, node)
    nodes = [n for n in sources if isinstance(n, fx.Node)]
    tags = [tag for n in nodes if (tag := walk.tag(n))]
    if not tags:
        return None
    rank = len(walk.shape(node))
    axis = _argument(node, 1, "dim", 0)
    if len({tag.dim for tag in tags}) > 1 or any(tag.outer is not None for tag in tags) or not isinstance(axis, int):
        return unknown(walk, node)
    dim = tags[0].dim
    if axis % rank == dim:
        parts = [tag.layout if (tag := walk.tag(n)) else fixed(walk.shape(n)[dim]) for n in nodes]
        return Tagged(dim, tuple(segment for part in parts for segment in part))
    return combine(walk, node)


def chunk(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Cut the channels into equal parts; a cut elsewhere keeps them."""
    source = _source(node)
    tag, shape = walk.tag(source), walk.shape(source)
    if tag is None:
        return None
    axis = _argument(node, 2, "dim", 0) % len(shape)
    if axis not in (tag.dim, tag.outer):
        walk.parts[node] = [tag] * shape[axis]
        return None
    wanted = _argument(node, 1, "chunks", _argument(node, 1, "split_size_or_sections", None))
    count = _part_count(walk, node, wanted, shape[axis])
    if count is None or tag.outer is not None:
        return unknown(walk, node)
    layouts = split(tag.layout, count, node.name)
    if layouts is None:
        return unknown(walk, node)
    walk.mixing.add(node)
    walk.parts[node] = [Tagged(tag.dim, layout) for layout in layouts]
    return None


def _part_count(walk: "Walk", node: fx.Node, wanted: Any, length: int) -> int | None:
    """Return into how many equal parts chunk or split cuts; None if a size of a part is written into the code."""
    if str(getattr(node.target, "__name__", node.target)) == "chunk":
        return wanted if isinstance(wanted, int) and length % wanted == 0 else None
    part = walk.values.get(wanted) if isinstance(wanted, fx.Node) else None
    return length // part if isinstance(part, int) and part and length % part == 0 else None


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
    return _joined(walk, node, tag, shape, start, end)


def _joined(walk: "Walk", node: fx.Node, tag: Tagged, shape: tuple[int, ...], start: int, end: int) -> Tagged | None:
    """Return the layout after dimensions start..end became one."""
    if tag.outer is not None and start <= min(tag.outer, tag.dim) and max(tag.outer, tag.dim) <= end:
        before = math.prod(shape[start : min(tag.outer, tag.dim)])
        if before != 1 or abs(tag.outer - tag.dim) != 1:
            return unknown(walk, node)
        inner = math.prod(shape[max(tag.outer, tag.dim) + 1 : end + 1])
        walk.mixing.add(node)
        if tag.outer < tag.dim:
            return Tagged(start, scaled(tag.layout, inner) * tag.count)
        return Tagged(start, scaled(tag.layout, tag.count * inner))

    def moved(dim: int | None) -> int | None:
        return None if dim is None else dim if dim < start else dim - (end - start)

    if not start <= tag.dim <= end:
        if tag.outer is not None and start <= tag.outer <= end and end > start:
            return unknown(walk, node)
        dim = moved(tag.dim)
        assert dim is not None
        return Tagged(dim, tag.layout, tag.count, moved(tag.outer))
    if tag.outer is not None or math.prod(shape[start : tag.dim]) != 1:
        return unknown(walk, node)
    return Tagged(start, scaled(tag.layout, math.prod(shape[tag.dim + 1 : end + 1])))


def reshape(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Understand reshapes that join neighbouring dimensions, or cut the channels into a number of parts."""
    source = _source(node)
    tag, before, after = walk.tag(source), walk.shape(source), walk.shape(node)
    if tag is None:
        return None
    sizes = node.args[1:] or (node.kwargs.get("shape", node.kwargs.get("size")),)
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = tuple(sizes[0])
    if len(sizes) != len(after):
        return unknown(walk, node)
    written = [isinstance(length, int) and length != -1 for length in sizes]
    # 1. One value per channel gets dimensions of size one around it.
    if math.prod(before) == before[tag.dim] and tag.outer is None:
        dims = [dim for dim, length in enumerate(after) if length > 1]
        return Tagged(dims[0], tag.layout) if len(dims) == 1 and not written[dims[0]] else unknown(walk, node)
    first = tag.dim if tag.outer is None else min(tag.dim, tag.outer)
    if before[:first] != after[:first]:
        return unknown(walk, node)
    # 2. The channels fall into a number of parts that the code gives.
    cut = (
        tag.outer is None
        and before[first + 1 :] == after[first + 2 :]
        and before[first] == math.prod(after[first : first + 2])
    )
    if cut and written[first] and not written[first + 1]:
        parts = split(tag.layout, after[first], node.name)
        walk.mixing.add(node)
        return Tagged(first + 1, parts[0], after[first], first) if parts else unknown(walk, node)
    # 3. Neighbouring dimensions, the channels' first, become one; those behind stay or become one, too.
    if written[first]:
        return unknown(walk, node)
    for end in range(first, len(before)):
        joined = before[:first] + (math.prod(before[first : end + 1]),) + before[end + 1 :]
        if joined == after:
            return _joined(walk, node, tag, before, first, end)
    if tag.outer is None and before[first] == after[first] and math.prod(before) == math.prod(after):
        return tag
    return unknown(walk, node)


def reduce(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Drop the reduced dimensions; over channels the result has none, whatever their number."""
    return _reduced(walk, node, 1)


def reduce_norm(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Reduce by an operation whose first argument is the order of a norm."""
    return _reduced(walk, node, 2)


def _reduced(walk: "Walk", node: fx.Node, position: int) -> Tagged | None:
    source = _source(node)
    tag, shape = walk.tag(source), walk.shape(source)
    if tag is None:
        return None
    dims = _argument(node, position, "dim", None)
    if dims is None:
        dims = tuple(range(len(shape)))
    reduced = {d % len(shape) for d in ((dims,) if isinstance(dims, int) else dims)}
    if tag.dim in reduced:
        walk.mixing.add(node)
        return None
    if tag.outer in reduced:
        walk.mixing.add(node)
        tag = Tagged(tag.dim, tag.layout)
    if len(walk.shape(node)) == len(shape):
        return tag
    return _moved(tag, lambda dim: dim - sum(d < dim for d in reduced))


def soft_max(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Keep the layout; over channels, those in use share the sum."""
    tag = walk.tag(_source(node))
    module: Any = walk.called(node) if node.op == "call_module" else None
    dim = module.dim if module else _argument(node, 1, "dim", None)
    if tag is None or not isinstance(dim, int):
        return unknown(walk, node)
    if dim % len(walk.shape(node)) in (tag.dim, tag.outer):
        walk.mixing.add(node)
    return tag


def permute(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Follow the channels to their new dimension."""
    tag = walk.tag(_source(node))
    if tag is None:
        return None
    order = node.args[1:] or (node.kwargs.get("dims"),)
    if len(order) == 1 and isinstance(order[0], (tuple, list)):
        order = tuple(order[0])
    if len(order) != len(walk.shape(node)) or not all(isinstance(d, int) for d in order):
        return unknown(walk, node)
    places = [d % len(order) for d in order if isinstance(d, int)]
    return _moved(tag, places.index)


def transpose(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Follow the channels when two dimensions change places."""
    tag = walk.tag(_source(node))
    if tag is None:
        return None
    rank = len(walk.shape(node))
    one, other = (_argument(node, place, f"dim{place - 1}", None) % rank for place in (1, 2))
    return _moved(tag, lambda dim: {one: other, other: one}.get(dim, dim))


def unsqueeze(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Make room for a new dimension."""
    tag = walk.tag(_source(node))
    new = _argument(node, 1, "dim", None) % len(walk.shape(node))
    return tag and _moved(tag, lambda dim: dim + (dim >= new))


def squeeze(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Close the gap of dimensions of size one that are dropped."""
    source = _source(node)
    tag, shape = walk.tag(source), walk.shape(source)
    if tag is None:
        return None
    dims = _argument(node, 1, "dim", tuple(range(len(shape))))
    dropped = [d % len(shape) for d in ((dims,) if isinstance(dims, int) else dims) if shape[d % len(shape)] == 1]
    if tag.dim in dropped or tag.outer in dropped:
        return unknown(walk, node)
    return _moved(tag, lambda dim: dim - sum(d < dim for d in dropped))


def _moved(tag: Tagged, to: Callable[[int], int]) -> Tagged:
    """Return a layout whose dimensions went elsewhere."""
    return Tagged(to(tag.dim), tag.layout, tag.count, None if tag.outer is None else to(tag.outer))


def take_item(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Take one of several parts, or keep the layout if the index leaves channels alone, as x[:, :, 1:] does."""
    source, index = node.args[0], node.args[1]
    if not isinstance(source, fx.Node):
        return None
    if source in walk.parts and isinstance(index, int):
        return walk.parts[source][index]
    tag = walk.tag(source)
    if tag is None:
        return None
    parts = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in parts:
        return unknown(walk, node)
    old = new = 0
    moved: dict[int, int] = {}
    for part in [*parts, *[slice(None)] * len(walk.shape(source))][: len(parts) + len(walk.shape(source))]:
        if part is None:
            new += 1
        elif isinstance(part, slice) and old < len(walk.shape(source)):
            if part == slice(None) or old not in (tag.dim, tag.outer):
                moved[old] = new
            old, new = old + 1, new + 1
        elif isinstance(part, int) and old not in (tag.dim, tag.outer):
            old += 1
        elif old < len(walk.shape(source)):
            return unknown(walk, node)
    if tag.dim not in moved or (tag.outer is not None and tag.outer not in moved):
        return unknown(walk, node)
    return _moved(tag, moved.__getitem__)


def pad(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Keep the layout if only dimensions behind the channels are padded."""
    tag = walk.tag(_source(node))
    amounts = _argument(node, 1, "pad", None)
    behind = isinstance(amounts, (tuple, list)) and tag and len(amounts) // 2 < len(walk.shape(node)) - tag.dim
    return tag if tag is None or behind else unknown(walk, node)


def shuffle(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Interleave the groups of nn.ChannelShuffle."""
    tag = walk.tag(_source(node))
    module: Any = walk.called(node)
    if tag is None:
        return None
    parts = split(tag.layout, module.groups, str(node.target)) if tag.dim == 1 and tag.outer is None else None
    if parts is None:
        return unknown(walk, node)
    walk.mixing.add(node)
    return Tagged(1, scaled(parts[0], module.groups))


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


def _integers(values: Iterable[Any]) -> Iterable[int]:
    """Yield the integers in nested sequences."""
    for value in values:
        if isinstance(value, int):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _integers(value)


def unknown(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Pin everything that the operation touches; its output is of fixed shape.

    Raises UsageError for an operation that multiplies: its FLOPs would be missing from every count.
    """
    module = walk.called(node) if node.op == "call_module" else None
    what = type(module).__name__ if module is not None else _name(node)
    where = str(node.target) if module is not None else node.name
    matrices = module is not None and any(p.dim() > 1 for p in module.parameters())
    if what in ATTENTION:
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


ATTENTION = frozenset(
    ("MultiheadAttention", "scaled_dot_product_attention", "multi_head_attention_forward", "Transformer")
)
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


def _name(node: fx.Node) -> str:
    """Return the readable name of a function or method."""
    return str(getattr(node.target, "__name__", node.target))


def _source(node: fx.Node) -> fx.Node:
    """Return a node's first input."""
    return node.all_input_nodes[0]


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    """Return an argument given by position or by name; a `dim` may be called `axis`, as in NumPy."""
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(name, node.kwargs.get("axis", default) if name == "dim" else default)


LAYERS: dict[type, Rule] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), convolution),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), convolution),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), batch_norm),
    nn.Linear: linear,
    nn.LayerNorm: layer_norm,
    nn.GroupNorm: group_norm,
    nn.PReLU: prelu,
}
"""Layers with weights; a subclass follows the rule of its base."""

MODULES: dict[type, Rule] = {
    nn.Flatten: flatten,
    nn.ChannelShuffle: shuffle,
    **dict.fromkeys((nn.Softmax, nn.LogSoftmax), soft_max),
    **dict.fromkeys(
        (
            *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
            *(nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Identity),
            *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
            *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
            *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
            *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
            *(nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d, nn.ZeroPad2d),
            *(nn.ReflectionPad2d, nn.ReplicationPad2d, nn.ConstantPad2d),
        ),
        keep,
    ),
}

FUNCTIONS: dict[Any, Rule] = {
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
            *(F.dropout, F.dropout2d, F.softplus, F.sigmoid, F.tanh, F.interpolate),
            *(F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d),
            *(torch.relu, torch.sigmoid, torch.tanh, torch.clamp, torch.square, torch.sqrt, torch.rsqrt, torch.exp),
            *(torch.abs, operator.neg),
        ),
        keep,
    ),
}

NAMED_FUNCTIONS: dict[str, Rule] = {
    # torchvision's, named so that this module need not import torchvision; boolean-dispatched pooling has wrappers.
    **dict.fromkeys(("stochastic_depth", "max_pool2d", "boolean_dispatch", "adaptive_max_pool2d"), keep),
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
