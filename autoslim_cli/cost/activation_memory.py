"""Compute the memory of live activations: closed form over the lifetimes of tensors in the graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import fx

from autoslim_cli.network.reading import Reading
from autoslim_cli.network.table import Channels
from autoslim_cli.network.tensors import TensorSize, tensor_size

VALUE_BYTES = 4
"""Bytes of one value: fp32."""


class Piece(Protocol):
    """A part of the graph that runs as a whole: the tensors that it takes, and those of its own that others take."""

    @property
    def inputs(self) -> tuple[fx.Node, ...]:
        """Return what it takes."""
        ...

    @property
    def outputs(self) -> tuple[fx.Node, ...]:
        """Return what it makes."""
        ...


@dataclass(frozen=True)
class ActivationMemory:
    """The most bytes that tensors between layers hold at a time, at batch 1 in fp32.

    A layer is a piece (`latency/pieces.py`): what it takes and what it makes are alive while it runs, and every tensor
    that a later layer takes; what the network gives stays alive to the end. A view keeps all of the tensor alive that
    it lies in. What a kernel needs for itself is the engine's, and not counted.
    """

    tensors: tuple[TensorSize, ...]
    alive: tuple[tuple[int, ...], ...]
    """The tensors, by their place in `tensors`, that are alive at a time: each set once."""

    @classmethod
    def of(cls, reading: Reading, pieces: Sequence[Piece]) -> "ActivationMemory":
        """Find which tensors are alive while each piece runs; `pieces` are in the order of the graph."""
        first: dict[fx.Node, int] = {}
        last: dict[fx.Node, int] = {}
        held = [(number, (*piece.inputs, *piece.outputs)) for number, piece in enumerate(pieces)]
        for number, nodes in (*held, (len(pieces) - 1, _given(reading))):
            for node in nodes:
                maker = reading.memory.get(node, node)
                if maker.op != "get_attr":  # a view of a weight
                    first.setdefault(maker, number)
                    last[maker] = number
        alive = (
            tuple(place for place, node in enumerate(first) if first[node] <= number <= last[node])
            for number in range(len(pieces))
        )
        return cls(tuple(tensor_size(reading, node) for node in first), tuple(dict.fromkeys(alive)))

    def __call__(self, channels: Channels) -> int:
        """Return the bytes at some channels."""
        values = [tensor.values(channels) for tensor in self.tensors]
        return VALUE_BYTES * max(sum(values[place] for place in places) for places in self.alive)


def _given(reading: Reading) -> tuple[fx.Node, ...]:
    """Return the tensors that a network gives, alone or in tuples and dictionaries."""
    found: dict[fx.Node, None] = {}
    waiting = [source for node in reading.graph.nodes if node.op == "output" for source in node.all_input_nodes]
    while waiting:
        node = waiting.pop()
        if node in reading.shapes:
            found[node] = None
        elif node not in reading.numbers:
            waiting.extend(node.all_input_nodes)
    return tuple(found)
