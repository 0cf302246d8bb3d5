"""Turn the in-place operations of a graph into ones that give new tensors: forks of an evaluation share theirs.

What is computed in place is seen from then on under every name of that memory. A run on meta tensors, as the code is
written, shows which operations change which tensors; the graph is then rewritten to say the same without doing it.
"""

import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from autoslim_cli.errors import UsageError
from autoslim_cli.network.source import line_of
from autoslim_cli.network.tensors import tensors_in

OUT_OF_PLACE: dict[Callable[..., object], Callable[..., object]] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    operator.ifloordiv: operator.floordiv,
    operator.ipow: operator.pow,
    operator.imod: operator.mod,
}

Changes = dict[fx.Node, dict[fx.Node, object]]
"""For each node, the nodes whose values it changes and the code may still read, with these values."""


class Proxy(fx.Proxy):
    """Record `x += y` as what it is: fx alone takes it for `x = x + y`, which other names of x do not see."""


def _recorder(target: Callable[..., object]) -> Callable[[Proxy, object], fx.Proxy]:
    """Return the method that records an augmented assignment."""

    def record(self: Proxy, other: object) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", target, (self, other), {})

    return record


for _target in OUT_OF_PLACE:
    setattr(Proxy, f"__{_target.__name__}__", _recorder(_target))


def make_out_of_place(module: nn.Module, graph: fx.Graph, *images: Tensor) -> None:
    """Rewrite the graph of a module on the meta device; it is run once on `images`.

    Modules with an attribute `inplace` stay: who runs the graph unsets it. Raises UsageError naming an operation that
    changes a tensor which the code reads under another name, or that is not known out of place.
    """
    changes = _Watch(module, graph).changes_on(*images)
    place = {node: number for number, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        node.target = OUT_OF_PLACE.get(node.target, node.target) if node.op == "call_function" else node.target
        if node not in changes:
            continue
        changed = changes[node]
        operand = node.all_input_nodes[0] if node.all_input_nodes else None
        if operand not in changed or any(map(_is_data, changed)) or not _turn_out_of_place(module, node):
            raise UsageError(f"{_name(node)} works in place, and is not known out of place{line_of(node)}: write it so")
        for other, value in changed.items():
            users = [user for user in other.users if place[user] > place[node]]
            if not users or not _overlap(value, changed[operand]):
                continue
            if not _is_same_tensor(value, changed[operand]):
                raise UsageError(
                    f"{_name(node)} changes in place what the code reads as {other.name}, too{line_of(node)}: "
                    "write it out of place"
                )
            for user in users:
                user.replace_input_with(other, node)


class _Watch(fx.Interpreter):
    """Run a graph as it is written, and note which values each node changes in place."""

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        super().__init__(module, garbage_collect_values=False, graph=graph)
        order = {node: place for place, node in enumerate(graph.nodes)}
        self.last_read = {node: max((order[user] for user in node.users), default=-1) for node in order}
        self.order = order
        self.still_read: dict[fx.Node, object] = {}
        self.changes: Changes = {}

    def changes_on(self, *images: Tensor) -> Changes:
        """Return what changes what. A network that does not run on such images is left to the walk, which says so."""
        try:
            self.run(*images)
        except Exception:  # whatever the user's operations raise
            return {}
        return self.changes

    def run_node(self, n: fx.Node) -> object:
        """Run one node, and compare the versions of all values that are still read."""
        self.still_read = {
            node: value for node, value in self.still_read.items() if self.last_read[node] >= self.order[n]
        }
        before = {node: _versions(value) for node, value in self.still_read.items()}
        value = super().run_node(n)
        changed = {node: self.still_read[node] for node in before if _versions(self.still_read[node]) != before[node]}
        if changed:
            self.changes[n] = changed
            self.last_read[n] = max(self.last_read[n], *(self.last_read[node] for node in changed))
        if n.op != "get_attr" and any(True for _ in tensors_in(value)):
            self.still_read[n] = value
        return value


def _turn_out_of_place(module: nn.Module, node: fx.Node) -> bool:
    """Turn an operation that works in place into the one that gives a new tensor; tell whether there is one."""
    target: Any = node.target
    if node.op == "call_module":
        return bool(getattr(module.get_submodule(target), "inplace", False))
    if node.op == "call_method":
        node.target = str(target).removesuffix("_")
        return bool(node.target != target)
    if target in OUT_OF_PLACE.values():
        return True
    name = str(getattr(target, "__name__", ""))
    if name.endswith("_"):
        plain = getattr(torch, name.rstrip("_"), None) or getattr(F, name.rstrip("_"), None)
        node.target = plain or target
        return plain is not None
    return _unset_inplace(node)


def _unset_inplace(node: fx.Node) -> bool:
    """Set the argument `inplace` of a function to False, if it was given."""
    target: Any = node.target
    if node.kwargs.get("inplace"):
        node.kwargs = {**node.kwargs, "inplace": False}
        return True
    try:
        names = list(inspect.signature(target).parameters)
    except (TypeError, ValueError):
        return False
    at = names.index("inplace") if "inplace" in names else len(node.args)
    if at >= len(node.args) or not node.args[at]:
        return False
    node.args = (*node.args[:at], False, *node.args[at + 1 :])
    return True


def _is_data(node: fx.Node) -> bool:
    """Tell whether a node is `x.data`, whose changes x has without its version counter showing it."""
    return node.target is getattr and node.args[1:] == ("data",)


def _versions(value: object) -> list[object]:
    """Return how often each tensor's memory was changed in place, and where in it the tensor lies."""
    return [(tensor._version, *_geometry(tensor)) for tensor in tensors_in(value)]


def _geometry(tensor: Tensor) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Return where in its memory a tensor lies."""
    return tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset())


def _is_same_tensor(one: object, other: object) -> bool:
    """Tell whether two values are the same tensor under two names."""
    return isinstance(one, Tensor) and isinstance(other, Tensor) and _geometry(one) == _geometry(other)


def _overlap(one: object, other: object) -> bool:
    """Tell whether two values, changed at once, share memory: the halves of a chunk do not."""
    if _is_same_tensor(one, other):
        return True
    mine, theirs = list(tensors_in(one)), list(tensors_in(other))
    extent = max(
        1 + t.storage_offset() + sum((n - 1) * s for n, s in zip(*_geometry(t)[:2], strict=True)) for t in mine + theirs
    )
    seen = torch.zeros(extent, dtype=torch.bool)
    for tensor in mine:
        seen.as_strided(*_geometry(tensor)).fill_(True)
    return any(bool(seen.as_strided(*_geometry(tensor)).any()) for tensor in theirs)


def _name(node: fx.Node) -> str:
    """Name an operation as the user knows it."""
    return str(node.target) if node.op == "call_module" else node.name
