"""Say what happens to channels that are joined end to end, cut into parts, or interleaved."""

from torch import fx

from autoslim_cli.network.facts import Found, Mixes, Parts
from autoslim_cli.network.layouts import Tagged, fixed, scaled
from autoslim_cli.network.rules.elementwise import combine
from autoslim_cli.network.rules.not_understood import unknown
from autoslim_cli.network.rules.operation import Operation, name_of
from autoslim_cli.network.rules.splitting import split


def concat(operation: Operation) -> Found:
    """Join the layouts along channels; along any other dimension, merge them."""
    node = operation.node
    sources = node.args[0] if node.args else node.kwargs["tensors"]
    if not isinstance(sources, (tuple, list)) or not all(isinstance(n, fx.Node) for n in sources):
        return unknown(operation)
    values = [operation.inputs[n] for n in sources if isinstance(n, fx.Node)]
    tags = [value.tag for value in values if value.tag]
    if not tags:
        return Found()
    rank = len(operation.after)
    axis = operation.argument(1, "dim", 0)
    if len({tag.dim for tag in tags}) > 1 or any(tag.outer is not None for tag in tags) or not isinstance(axis, int):
        return unknown(operation)
    dim = tags[0].dim
    if axis % rank == dim:
        layouts = [value.tag.layout if value.tag else fixed((value.shape or ())[dim]) for value in values]
        return Found(Tagged(dim, tuple(segment for layout in layouts for segment in layout)))
    return combine(operation)


def chunk(operation: Operation) -> Found:
    """Cut the channels into equal parts; a cut elsewhere keeps them."""
    tag, shape = operation.tag, operation.before
    if tag is None:
        return Found()
    axis = operation.argument(2, "dim", 0) % len(shape)
    if axis not in (tag.dim, tag.outer):
        return Found(facts=(Parts((tag,) * shape[axis]),))
    wanted = operation.argument(1, "chunks", operation.argument(1, "split_size_or_sections", None))
    count = _part_count(operation, wanted, shape[axis])
    if count is None or tag.outer is not None:
        return unknown(operation)
    parts = split(tag.layout, count, operation.where)
    if parts is None:
        return unknown(operation)
    layouts, facts = parts
    return Found(facts=(*facts, Mixes(), Parts(tuple(Tagged(tag.dim, layout) for layout in layouts))))


def _part_count(operation: Operation, wanted: object, length: int) -> int | None:
    """Return into how many equal parts chunk or split cuts; None if a size of a part is written into the code."""
    if name_of(operation.node) == "chunk":
        return wanted if isinstance(wanted, int) and length % wanted == 0 else None
    part = operation.inputs[wanted].number if isinstance(wanted, fx.Node) else None
    return length // part if isinstance(part, int) and part and length % part == 0 else None


def shuffle(operation: Operation) -> Found:
    """Interleave the groups of nn.ChannelShuffle."""
    tag, groups = operation.tag, operation.layer.groups
    if tag is None:
        return Found()
    parts = split(tag.layout, groups, operation.where) if tag.dim == 1 and tag.outer is None else None
    if parts is None:
        return unknown(operation)
    (first, *_), facts = parts
    return Found(Tagged(1, scaled(first, groups)), (*facts, Mixes()))
