"""Say what operations that treat channels alike do: they keep layouts, merge them, or sum over dimensions."""

from typing import TYPE_CHECKING, Any

from torch import fx

from autoslim_cli.network.open_units import Tagged, merge, pin, size
from autoslim_cli.network.rules.nodes import argument, moved, source_of, unknown

if TYPE_CHECKING:
    from autoslim_cli.network.trace import Walk


def keep(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Keep the layout: each output channel comes from the same input channel."""
    tag = walk.tag(source_of(node))
    if tag and walk.is_tensor(node) and len(walk.shape(node)) != len(walk.shape(source_of(node))):
        return unknown(walk, node)
    return tag


def keep_behind(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Keep the layout of what pools or scales the dimensions behind the second, if channels are the second."""
    tag = keep(walk, node)
    return tag if tag is None or tag.dim == 1 else unknown(walk, node)


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


def reduce(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Drop the reduced dimensions; over channels the result has none, whatever their number."""
    return _reduced(walk, node, 1)


def reduce_norm(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Reduce by an operation whose first argument is the order of a norm."""
    return _reduced(walk, node, 2)


def _reduced(walk: "Walk", node: fx.Node, position: int) -> Tagged | None:
    source = source_of(node)
    tag, shape = walk.tag(source), walk.shape(source)
    if tag is None:
        return None
    dims = argument(node, position, "dim", None)
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
    return moved(tag, lambda dim: dim - sum(d < dim for d in reduced))


def soft_max(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Keep the layout; over channels, those in use share the sum."""
    tag = walk.tag(source_of(node))
    module: Any = walk.called(node) if node.op == "call_module" else None
    dim = module.dim if module else argument(node, 1, "dim", None)
    if tag is None or not isinstance(dim, int):
        return unknown(walk, node)
    if dim % len(walk.shape(node)) in (tag.dim, tag.outer):
        walk.mixing.add(node)
    return tag


def pad(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Keep the layout if only dimensions behind the channels are padded."""
    tag = walk.tag(source_of(node))
    amounts = argument(node, 1, "pad", None)
    behind = isinstance(amounts, (tuple, list)) and tag and len(amounts) // 2 < len(walk.shape(node)) - tag.dim
    return tag if tag is None or behind else unknown(walk, node)
