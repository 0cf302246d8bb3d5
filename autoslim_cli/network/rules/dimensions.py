"""Say what happens to channels when dimensions are joined, cut, added, dropped or change places."""

import math

from torch import fx

from autoslim_cli.network.facts import Cap, Fact, Found, Mixes, Parts
from autoslim_cli.network.layouts import Tagged, scaled
from autoslim_cli.network.rules.not_understood import unknown
from autoslim_cli.network.rules.operation import Operation, moved
from autoslim_cli.network.rules.splitting import split


def flatten(operation: Operation) -> Found:
    """Multiply: a channel becomes as many neighbouring features as it had positions."""
    tag, rank = operation.tag, len(operation.before)
    if tag is None:
        return Found()
    if operation.node.op == "call_module":
        start, end = operation.layer.start_dim, operation.layer.end_dim
    else:
        start, end = operation.argument(1, "start_dim", 0), operation.argument(2, "end_dim", -1)
    return _joined(operation, tag, start % rank, end % rank)


def _joined(operation: Operation, tag: Tagged, start: int, end: int) -> Found:
    """Return the layout after dimensions start..end of the input became one."""
    shape = operation.before

    def after(dim: int) -> int:
        return dim if dim < start else dim - (end - start)

    # 1. Both dimensions of channels that were cut into parts become one again.
    if tag.outer is not None and start <= min(tag.outer, tag.dim) and max(tag.outer, tag.dim) <= end:
        if math.prod(shape[start : min(tag.outer, tag.dim)]) != 1 or abs(tag.outer - tag.dim) != 1:
            return unknown(operation)
        inner = math.prod(shape[max(tag.outer, tag.dim) + 1 : end + 1])
        if tag.outer < tag.dim:
            return Found(Tagged(start, scaled(tag.layout, inner) * tag.count), (Mixes(),))
        return Found(Tagged(start, scaled(tag.layout, tag.count * inner)), (Mixes(),))
    # 2. Other dimensions than that of the channels.
    if not start <= tag.dim <= end:
        if tag.outer is not None and start <= tag.outer <= end and end > start:
            return unknown(operation)
        return Found(moved(tag, after))
    # 3. The channels' dimension and those behind it.
    if tag.outer is not None or math.prod(shape[start : tag.dim]) != 1:
        return unknown(operation)
    return Found(Tagged(start, scaled(tag.layout, math.prod(shape[tag.dim + 1 : end + 1]))))


def reshape(operation: Operation) -> Found:
    """Understand reshapes that join neighbouring dimensions, or cut the channels into a number of parts."""
    node, tag, before, after = operation.node, operation.tag, operation.before, operation.after
    if tag is None:
        return Found()
    sizes = node.args[1:] or (node.kwargs.get("shape", node.kwargs.get("size")),)
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = tuple(sizes[0])
    if len(sizes) != len(after):
        return unknown(operation)
    written = [isinstance(length, int) and length != -1 for length in sizes]
    # 1. One value per channel gets dimensions of size one around it.
    if math.prod(before) == before[tag.dim] and tag.outer is None:
        dims = [dim for dim, length in enumerate(after) if length > 1]
        is_clear = len(dims) == 1 and not written[dims[0]]
        return Found(Tagged(dims[0], tag.layout)) if is_clear else unknown(operation)
    first = tag.dim if tag.outer is None else min(tag.dim, tag.outer)
    if before[:first] != after[:first]:
        return unknown(operation)
    # 2. The channels fall into a number of parts that the code gives.
    is_cut = (
        tag.outer is None
        and before[first + 1 :] == after[first + 2 :]
        and before[first] == math.prod(after[first : first + 2])
    )
    if is_cut and written[first] and not written[first + 1]:
        parts = split(tag.layout, after[first], operation.where)
        if parts is None:
            return unknown(operation)
        (layout, *_), facts = parts
        return Found(Tagged(first + 1, layout, after[first], first), (*facts, Mixes()))
    # 3. Neighbouring dimensions, the channels' first, become one; those behind stay or become one, too.
    if written[first]:
        return unknown(operation)
    for end in range(first, len(before)):
        joined = before[:first] + (math.prod(before[first : end + 1]),) + before[end + 1 :]
        if joined == after:
            return _joined(operation, tag, first, end)
    if tag.outer is None and before[first] == after[first] and math.prod(before) == math.prod(after):
        return Found(tag)
    return unknown(operation)


def permute(operation: Operation) -> Found:
    """Follow the channels to their new dimension."""
    node, tag = operation.node, operation.tag
    if tag is None:
        return Found()
    order = node.args[1:] or (node.kwargs.get("dims"),)
    if len(order) == 1 and isinstance(order[0], (tuple, list)):
        order = tuple(order[0])
    if len(order) != len(operation.after) or not all(isinstance(d, int) for d in order):
        return unknown(operation)
    places = [d % len(order) for d in order if isinstance(d, int)]
    return Found(moved(tag, places.index))


def transpose(operation: Operation) -> Found:
    """Follow the channels when two dimensions change places."""
    tag = operation.tag
    if tag is None:
        return Found()
    rank = len(operation.after)
    one, other = (operation.argument(place, f"dim{place - 1}", None) % rank for place in (1, 2))
    return Found(moved(tag, lambda dim: {one: other, other: one}.get(dim, dim)))


def unsqueeze(operation: Operation) -> Found:
    """Make room for a new dimension."""
    new = operation.argument(1, "dim", None) % len(operation.after)
    return Found(operation.tag and moved(operation.tag, lambda dim: dim + (dim >= new)))


def squeeze(operation: Operation) -> Found:
    """Close the gap of dimensions of size one that are dropped."""
    tag, shape = operation.tag, operation.before
    if tag is None:
        return Found()
    dims = operation.argument(1, "dim", tuple(range(len(shape))))
    dropped = [d % len(shape) for d in ((dims,) if isinstance(dims, int) else dims) if shape[d % len(shape)] == 1]
    if tag.dim in dropped or tag.outer in dropped:
        return unknown(operation)
    return Found(moved(tag, lambda dim: dim - sum(d < dim for d in dropped)))


def take_item(operation: Operation) -> Found:
    """Take one of several parts, or keep the layout if the index leaves channels alone, as x[:, :, 1:] does.

    A cut after a number of channels that is no less than all of them, `x[:, :n]`, leaves fewer alone, too.
    """
    source, index = operation.node.args[0], operation.node.args[1]
    if not isinstance(source, fx.Node):
        return Found()
    value = operation.inputs[source]
    if value.parts and isinstance(index, int):
        return Found(value.parts[index])
    if value.parts and isinstance(index, slice):
        return Found(facts=(Parts(value.parts[index]),))
    if value.parts:
        return unknown(operation)
    tag = value.tag
    if tag is None:
        return Found()
    items = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in items:
        return unknown(operation)
    consumed = sum(item is not None for item in items)
    old = new = 0
    places: dict[int, int] = {}
    facts: tuple[Fact, ...] = ()
    for item in [*items, *[slice(None)] * (len(value.shape or ()) - consumed)]:
        holds_channels = old in (tag.dim, tag.outer)
        if item is None:
            new += 1
        elif isinstance(item, slice) and (item == slice(None) or not holds_channels):
            places[old] = new
            old, new = old + 1, new + 1
        elif isinstance(item, slice) and tag.outer is None and _takes_all(item, operation.before[old]):
            facts = (Cap(tag.layout, f"{operation.where} takes the first {item.stop} channels, all at base width"),)
            places[old] = new
            old, new = old + 1, new + 1
        elif isinstance(item, int) and not holds_channels:
            old += 1
        else:
            return unknown(operation)
    return Found(moved(tag, places.__getitem__), facts)


def _takes_all(item: slice, whole: int) -> bool:
    """Tell whether a slice from the start ends at a number that is no less than the whole, as GhostNet's does."""
    starts = item.start in (None, 0) and item.step in (None, 1)
    return starts and isinstance(item.stop, int) and item.stop >= whole
