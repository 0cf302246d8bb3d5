"""Compute the memory of live activations: closed form over the lifetimes of tensors in the graph."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx

from autoslim_cli.network.pieces import Piece, Sized, sized
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.table import Channels

BYTES = 4
"""Bytes of one value: fp32."""


@dataclass(frozen=True)
class ActivationMemory:
    """The most bytes that tensors between layers hold at a time, at batch 1 in fp32.

    A layer is a piece (`network/pieces.py`): what it takes and what it makes are alive while it runs, and every tensor
    that a later layer takes. A view keeps all of the tensor alive that it lies in.
    What a kernel needs for itself is the engine's, and not counted.
    """

    tensors: tuple[Sized, ...]
    alive: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, reading: Reading, pieces: Sequence[Piece]) -> "ActivationMemory":
        """Find which tensors are alive while each piece runs."""
        made: dict[fx.Node, int] = {}
        last: dict[fx.Node, int] = {}
        for number, piece in enumerate(pieces):
            for node in (*piece.inputs, *piece.outputs):
                maker = reading.memory.get(node, node)
                if maker.op != "get_attr":  # a view of a weight
                    made.setdefault(maker, number)
                    last[maker] = number
        order = list(made)
        alive = (
            tuple(place for place, node in enumerate(order) if made[node] <= number <= last[node])
            for number in range(len(pieces))
        )
        return cls(tuple(sized(reading, node) for node in order), tuple(dict.fromkeys(alive)))

    def __call__(self, channels: Channels) -> int:
        """Return the bytes at some channels."""
        values = [tensor.values(channels) for tensor in self.tensors]
        return BYTES * max(sum(values[place] for place in places) for places in self.alive)
