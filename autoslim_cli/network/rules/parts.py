"""Say what happens to channels that are joined end to end, cut into parts, or interleaved."""

from typing import TYPE_CHECKING, Any

from torch import fx

from autoslim_cli.network.open_units import Tagged, fixed, scaled, split
from autoslim_cli.network.rules.elementwise import combine
from autoslim_cli.network.rules.nodes import argument, source_of, unknown

if TYPE_CHECKING:
    from autoslim_cli.network.trace import Walk


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
    axis = argument(node, 1, "dim", 0)
    if len({tag.dim for tag in tags}) > 1 or any(tag.outer is not None for tag in tags) or not isinstance(axis, int):
        return unknown(walk, node)
    dim = tags[0].dim
    if axis % rank == dim:
        parts = [tag.layout if (tag := walk.tag(n)) else fixed(walk.shape(n)[dim]) for n in nodes]
        return Tagged(dim, tuple(segment for part in parts for segment in part))
    return combine(walk, node)


def chunk(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Cut the channels into equal parts; a cut elsewhere keeps them."""
    source = source_of(node)
    tag, shape = walk.tag(source), walk.shape(source)
    if tag is None:
        return None
    axis = argument(node, 2, "dim", 0) % len(shape)
    if axis not in (tag.dim, tag.outer):
        walk.parts[node] = [tag] * shape[axis]
        return None
    wanted = argument(node, 1, "chunks", argument(node, 1, "split_size_or_sections", None))
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


def shuffle(walk: "Walk", node: fx.Node) -> Tagged | None:
    """Interleave the groups of nn.ChannelShuffle."""
    tag = walk.tag(source_of(node))
    module: Any = walk.called(node)
    if tag is None:
        return None
    parts = split(tag.layout, module.groups, str(node.target)) if tag.dim == 1 and tag.outer is None else None
    if parts is None:
        return unknown(walk, node)
    walk.mixing.add(node)
    return Tagged(1, scaled(parts[0], module.groups))
