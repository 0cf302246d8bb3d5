"""Say what operations that treat channels alike do: they keep layouts, merge them, or sum over dimensions."""

import re
from dataclasses import replace

from autoslim_cli.network.facts import Fact, Found, Merge, Mixes, Pin
from autoslim_cli.network.layouts import Tagged, size
from autoslim_cli.network.rules.not_understood import unknown
from autoslim_cli.network.rules.operation import Operation, moved, name_of


def keep(operation: Operation) -> Found:
    """Keep the layout: each output channel comes from the same input channel. What gives several tensors is unknown."""
    several = operation.output.shape is None
    if several or (operation.tag and len(operation.after) != len(operation.before)):
        return unknown(operation)
    return Found(operation.tag)


def keep_behind(operation: Operation) -> Found:
    """Keep the layout of what pools or scales the dimensions behind the second, if channels are the second.

    `AvgPool1d` of (images, channels), without positions, takes channels for these.
    """
    found, name = keep(operation), name_of(operation.node)
    if operation.node.op == "call_module":
        name = type(operation.layer).__name__
    behind = re.search(r"(\d)d$", name, re.IGNORECASE)
    is_without_images = behind is not None and len(operation.before) != int(behind[1]) + 2
    return found if found.tag is None or (found.tag.dim == 1 and not is_without_images) else unknown(operation)


def combine(operation: Operation) -> Found:
    """Merge the units of an elementwise operation's operands, with broadcasting."""
    where, after = operation.node.name, operation.after
    result: Tagged | None = None
    facts: list[Fact] = []
    operands = [value for value in operation.inputs.values() if value.shape is not None]
    for operand in operands:
        if operand.tag is None:
            continue
        tag = moved(operand.tag, (len(after) - len(operand.shape or ())).__add__)
        if after[tag.dim] != size(tag.layout):
            facts.append(Pin(tag.layout, f"{where} broadcasts it over channels"))
        elif result is None:
            result = tag
        elif (result.dim, result.count, result.outer) == (tag.dim, tag.count, tag.outer):
            facts.append(Merge(result.layout, tag.layout, where))
        else:
            facts.append(Pin(result.layout + tag.layout, f"{where} combines different channel layouts"))
    for shape in (operand.shape or () for operand in operands if operand.tag is None):
        at = result.dim - len(after) + len(shape) if result else -1
        if result and at >= 0 and shape[at] != 1:
            facts.append(Pin(result.layout, f"{where} combines it with a tensor of fixed width"))
    return Found(result, tuple(facts))


def reduce(operation: Operation) -> Found:
    """Drop the reduced dimensions; over channels the result has none, whatever their number."""
    return _reduced(operation, 1)


def reduce_norm(operation: Operation) -> Found:
    """Reduce by an operation whose first argument is the order of a norm."""
    return _reduced(operation, 2)


def _reduced(operation: Operation, position: int) -> Found:
    """Reduce over the dimensions that the argument at a position names."""
    tag, rank = operation.tag, len(operation.before)
    if tag is None:
        return Found()
    dims = operation.argument(position, "dim", None)
    if dims is None:
        dims = tuple(range(rank))
    reduced = {d % rank for d in ((dims,) if isinstance(dims, int) else dims)}
    if tag.dim in reduced:
        return Found(facts=(Mixes(),))
    mixes = (Mixes(),) if tag.outer in reduced else ()
    if mixes:
        tag = replace(tag, count=1, outer=None)
    if len(operation.after) == rank:
        return Found(tag, mixes)
    return Found(moved(tag, lambda dim: dim - sum(d < dim for d in reduced)), mixes)


def soft_max(operation: Operation) -> Found:
    """Keep the layout; over channels, those in use share the sum."""
    tag = operation.tag
    called = operation.node.op == "call_module"
    dim = operation.layer.dim if called else operation.argument(1, "dim", None)
    if tag is None or not isinstance(dim, int):
        return unknown(operation)
    return Found(tag, (Mixes(),) if dim % len(operation.after) in (tag.dim, tag.outer) else ())


def normalize(operation: Operation) -> Found:
    """Keep the layout; over channels, those in use share the norm."""
    tag, dim = operation.tag, operation.argument(2, "dim", 1)
    if tag is None or not isinstance(dim, int):
        return unknown(operation)
    return Found(tag, (Mixes(),) if dim % len(operation.after) in (tag.dim, tag.outer) else ())


def pad(operation: Operation) -> Found:
    """Keep the layout if only dimensions behind the channels are padded."""
    tag = operation.tag
    amounts = operation.argument(1, "pad", None)
    behind = isinstance(amounts, (tuple, list)) and tag and len(amounts) // 2 < len(operation.after) - tag.dim
    return Found(tag) if tag is None or behind else unknown(operation)
