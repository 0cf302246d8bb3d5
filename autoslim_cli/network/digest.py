"""Digest a network that was read: two readings with one digest compute the same from the same weights."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from enum import Enum
from types import CodeType, FunctionType, MethodType

import torch
from torch import Tensor, fx, nn

from autoslim_cli.network.reading import Reading
from autoslim_cli.network.table import Unit

LIBRARIES = ("torch", "torchvision", "builtins")
"""Packages whose layers and functions are known by name and arguments; of anybody else's, the code counts, too."""
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

_OF_EVERY_MODULE = frozenset((*vars(nn.Module()), "inplace"))
"""Attributes that say nothing about what a module computes. In place or not, the graph says what is seen of it."""


def digest(reading: Reading) -> str:
    """Return "sha256:..." over all that a network computes by, except its weights and BN's statistics.

    That is: the graph with every argument, the shape and type of each tensor in it at the size that was read; of each
    module, called or not, its type and attributes (stride, momentum, the rate of a dropout), and hooks; names, shapes
    and types of parameters and buffers, and the values of constants; the layer table and the units. Of a layer or
    function that is not torch's and that the graph holds whole, its bytecode: comments and names of variables do not
    count, the version of Python does. What the code does in training alone is seen as far as attributes tell.
    """
    plain = _Plain({node: number for number, node in enumerate(reading.graph.nodes)})
    called = {str(node.target) for node in reading.graph.nodes if node.op == "call_module"}
    modules = reading.module.named_modules(remove_duplicate=False)
    facts = {
        "graph": _graph(reading, plain),
        "modules": {name: _module(module, name in called, plain) for name, module in modules},
        "parameters": {
            name: [*_kind(tensor), tensor.requires_grad]
            for name, tensor in reading.module.named_parameters(remove_duplicate=False)
        },
        "buffers": {
            name: _kind(tensor) if name.rpartition(".")[2] in STATISTICS else _constant(tensor)
            for name, tensor in reading.module.named_buffers(remove_duplicate=False)
        },
        "rows": [dataclasses.asdict(row) for row in reading.table.rows],
        "units": [_unit(unit) for unit in reading.table.units],
    }
    return f"sha256:{hashlib.sha256(_text(facts).encode()).hexdigest()}"


def _unit(unit: Unit) -> dict[str, object]:
    """Return a unit; that it is pinned or capped counts, not the reason's words."""
    facts: dict[str, object] = {**dataclasses.asdict(unit), "pinned": unit.pinned is not None}
    del facts["capped"]
    return facts | ({"capped": True} if unit.capped else {})


def _text(value: object) -> str:
    """Write plain values in one way."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _graph(reading: Reading, plain: "_Plain") -> list[object]:
    """Return each node of the graph: what it does, to which nodes before it, and what comes out."""

    def written(node: fx.Node) -> list[object]:
        target = plain(node.target) if node.op == "call_function" else str(node.target)
        return [
            node.op,
            target,
            plain(node.args),
            plain(node.kwargs),
            list(reading.shapes.get(node, ())),
            str(reading.dtypes.get(node)),
        ]

    return [written(node) for node in reading.graph.nodes]


def _module(module: nn.Module, is_called: bool, plain: "_Plain") -> list[object]:
    """Return a module's type, attributes and hooks."""
    attributes = {name: plain(value) for name, value in vars(module).items() if name not in _OF_EVERY_MODULE}
    hooks = [plain(hook) for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values())]
    return [plain(type(module)) if is_called else type(module).__qualname__, attributes, hooks]


def _kind(tensor: Tensor) -> list[object]:
    """Return the shape and the type of a tensor."""
    return [list(tensor.shape), str(tensor.dtype)]


def _constant(tensor: Tensor) -> list[object]:
    """Return the shape, the type and the values of a tensor, as a digest."""
    if tensor.is_meta:
        return _kind(tensor)
    values = tensor.detach().cpu().contiguous().flatten()
    return [*_kind(tensor), hashlib.sha256(values.view(torch.uint8).numpy().tobytes()).hexdigest()]


class _Plain:
    """Turn what modules and graphs hold into plain JSON values, free of memory addresses and of any order of hashing.

    Functions and classes are entered once: what is met again, or refers to itself, is known by its name.
    """

    def __init__(self, place: Mapping[fx.Node, int]) -> None:
        self.place = place
        self.entered: dict[int, object] = {}  # by id, and kept alive so that no other object gets it

    def __call__(self, value: object) -> object:
        """Return a value as JSON can write it."""
        if value is None or isinstance(value, bool | int | float | str):
            return repr(value)
        if isinstance(value, Tensor):
            return ["tensor", *_constant(value)]
        if isinstance(value, nn.Module):
            return "a module"  # listed under its own name
        if isinstance(value, tuple | list):
            return [self(part) for part in value]
        if isinstance(value, Mapping):
            return ["map", *sorted(([self(key), self(part)] for key, part in value.items()), key=_text)]
        if isinstance(value, set | frozenset):
            return ["set", *sorted((self(part) for part in value), key=_text)]
        if isinstance(value, slice):
            return ["slice", self(value.start), self(value.stop), self(value.step)]
        if isinstance(value, fx.Node):
            return ["node", self.place[value]]
        return self._object(value)

    def _object(self, value: object) -> object:
        """Return a function, a class or any other object by its name, with what is in it unless it is a library's."""
        if isinstance(value, functools.partial):
            return ["partial", self(value.func), self(value.args), self(value.keywords)]
        if isinstance(value, MethodType):
            return ["method", self(value.__func__)]
        if isinstance(value, Enum):
            return [type(value).__qualname__, value.name]
        name = str(getattr(value, "__qualname__", type(value).__qualname__))
        if id(value) in self.entered:
            return name
        self.entered[id(value)] = value
        if isinstance(value, FunctionType):
            return [value.__name__] if _is_library(value) else [name, *self._function(value)]
        if isinstance(value, type):
            return [value.__name__] if _is_library(value) else [name, *self._class(value)]
        if callable(value) and hasattr(value, "__name__"):  # a built-in function
            return [str(value.__name__)]
        if _is_library(type(value)) or not hasattr(value, "__dict__"):
            return [name, str(value) if " at 0x" not in str(value) else ""]  # torch.float32, torch.channels_last
        return [name, self(vars(value))]

    def _function(self, function: FunctionType) -> Iterator[object]:
        """Yield what a function computes by: its code, its defaults, and what it takes from around it."""
        yield self._code(function.__code__)
        yield self(function.__defaults__)
        yield self(function.__kwdefaults__)
        cells = (cell for cell in function.__closure__ or () if cell != type(cell)())
        yield [self(cell.cell_contents) for cell in cells]
        outside = [function.__globals__.get(name) for name in _names(function.__code__)]
        yield [self(v) for v in outside if isinstance(v, bool | int | float | str | tuple | FunctionType)]

    def _class(self, kind: type) -> Iterator[object]:
        """Yield the methods of a class and of those that it comes from, down to the libraries' own."""
        for name, value in sorted(vars(kind).items()):
            method = value.__func__ if isinstance(value, staticmethod | classmethod) else value
            method = method.fget if isinstance(method, property) else method
            if isinstance(method, FunctionType):
                yield [name, self(method)]
            elif isinstance(value, bool | int | float | str | tuple) and not name.startswith("__"):
                yield [name, self(value)]
        yield [self(base) for base in kind.__bases__]

    def _code(self, code: CodeType) -> list[object]:
        """Return compiled code, less what names variables and lines."""
        constants = [self._code(c) if isinstance(c, CodeType) else self(c) for c in code.co_consts]
        return [code.co_code.hex(), list(code.co_names), constants]


def _names(code: CodeType) -> list[str]:
    """Return the names that code looks up around it, in the functions within it, too."""
    inner = [name for constant in code.co_consts if isinstance(constant, CodeType) for name in _names(constant)]
    return list(dict.fromkeys((*code.co_names, *inner)))


def _is_library(value: object) -> bool:
    """Tell whether a function or class is torch's or built in."""
    return str(getattr(value, "__module__", "")).partition(".")[0] in LIBRARIES
