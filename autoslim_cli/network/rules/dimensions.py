"""Say what happens to channels when dimensions are joined, cut, added, dropped or change places."""

import math
from typing import TYPE_CHECKING, Any

from torch import fx

from autoslim_cli.network.open_units import Tagged, scaled, split
from autoslim_cli.network.rules.nodes import argument, moved, source_of, unknown

if TYPE_CHECKING:
    from autoslim_cli.network.trace import Walk


def flatten(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Multiply: a channel becomes as many neighbouring features as it had positions."""
    source = source_of(node)
    tag, shape = walk.tag(source), walk.shape(source)
    if tag is None:
        return None
    if node.op == "call_module":
        module: Any = walk.called(node)
        start, end = module.start_dim, module.end_dim
    else:
        start, end = argument(node, 1, "start_dim", 0), argument(node, 2, "end_dim", -1)
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
    source = source_of(node)
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


def permute(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Follow the channels to their new dimension."""
    tag = walk.tag(source_of(node))
    if tag is None:
        return None
    order = node.args[1:] or (node.kwargs.get("dims"),)
    if len(order) == 1 and isinstance(order[0], (tuple, list)):
        order = tuple(order[0])
    if len(order) != len(walk.shape(node)) or not all(isinstance(d, int) for d in order):
        return unknown(walk, node)
    places = [d % len(order) for d in order if isinstance(d, int)]
    return moved(tag, places.index)


def transpose(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Follow the channels when two dimensions change places."""
    tag = walk.tag(source_of(node))
    if tag is None:
        return None
    rank = len(walk.shape(node))
    one, other = (argument(node, place, f"dim{place - 1}", None) % rank for place in (1, 2))
    return moved(tag, lambda dim: {one: other, other: one}.get(dim, dim))


def unsqueeze(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Make room for a new dimension."""
    tag = walk.tag(source_of(node))
    new = argument(node, 1, "dim", None) % len(walk.shape(node))
    return tag and moved(tag, lambda dim: dim + (dim >= new))


def squeeze(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Close the gap of dimensions of size one that are dropped."""
    source = source_of(node)
    tag, shape = walk.tag(source), walk.shape(source)
    if tag is None:
        return None
    dims = argument(node, 1, "dim", tuple(range(len(shape))))
    dropped = [d % len(shape) for d in ((dims,) if isinstance(dims, int) else dims) if shape[d % len(shape)] == 1]
    if tag.dim in dropped or tag.outer in dropped:
        return unknown(walk, node)
    return moved(tag, lambda dim: dim - sum(d < dim for d in dropped))


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
    consumed = sum(part is not None for part in parts)
    old = new = 0
    places: dict[int, int] = {}
    for part in [*parts, *[slice(None)] * (len(walk.shape(source)) - consumed)]:
        holds_channels = old in (tag.dim, tag.outer)
        if part is None:
            new += 1
        elif isinstance(part, slice) and (part == slice(None) or not holds_channels):
            places[old] = new
            old, new = old + 1, new + 1
        elif isinstance(part, int) and not holds_channels:
            old += 1
        else:
            return unknown(walk, node)
    return moved(tag, places.__getitem__)
