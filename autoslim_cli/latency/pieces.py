"""Cut a network's graph into pieces whose latency is measured one by one.

A piece starts at a convolution, a linear layer, a pooling or a sum of branches, and goes on with what works on its
output alone: normalisation, activation, reshapes. So it holds what engines fuse. Pieces that differ by nothing but
channel counts have one layer shape, and share one grid of measurements.
"""

import math
import operator
from dataclasses import dataclass

from torch import fx

from autoslim_cli.latency.axes import Axis, axes_of, count_along, units_along
from autoslim_cli.latency.layer_shape import layer_shape
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.table import Channels, LayerRow
from autoslim_cli.network.tensors import TensorSize, tensor_size


@dataclass(frozen=True)
class Piece:
    """A run of operations that is measured as one.

    `inputs` are tensors that other pieces make, `sizes` those of which it needs the size alone, `outputs` those that
    others take. `axes` (two at most) are the channel counts that its latency depends on; `shape` says all the rest,
    equal for pieces that differ by counts alone. `rows` are the layers in it, `tensors` what it reads and writes.
    """

    name: str
    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    sizes: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]
    axes: tuple[Axis, ...]
    shape: str
    rows: tuple[LayerRow, ...]
    tensors: tuple[TensorSize, ...]

    @property
    def multiplies(self) -> bool:
        """Tell whether a convolution or linear layer is in it."""
        return any(row.multiplies for row in self.rows)

    def weights(self, channels: Channels) -> int:
        """Return how many weights and biases it reads."""
        return sum(row.params(channels) for row in self.rows)

    def counts(self, channels: Channels) -> tuple[int, ...]:
        """Return the features along each axis at some channels."""
        return tuple(count_along(axis, channels) for axis in self.axes)

    @property
    def units(self) -> tuple[tuple[str, ...], ...]:
        """Return the units along each axis."""
        return tuple(map(units_along, self.axes))


def pieces(reading: Reading) -> list[Piece]:
    """Return a network's pieces, in the order of its graph: every operation on tensors is in one of them."""
    groups = _groups(reading)
    computed = {node for nodes in groups for node in nodes}
    found = [_piece(reading, nodes, computed) for nodes in groups]
    return [piece for piece in found if piece.outputs]  # a result that nothing takes in eval mode is dead code


def _groups(reading: Reading) -> list[list[fx.Node]]:
    """Gather nodes: one that works on a single piece's tensors, and makes nothing new of their size, joins it."""
    groups: list[list[fx.Node]] = []
    group_of: dict[fx.Node, int] = {}
    for node in reading.graph.nodes:
        if not _computes_tensor(reading, node):
            continue
        sources = {group_of.get(source) for source in _tensors_read(reading, node)}
        (only,) = sources if len(sources) == 1 else (None,)
        if only is None or _starts_piece(reading, node):
            only = len(groups)
            groups.append([])
        groups[only].append(node)
        group_of[node] = only
    return groups


def _computes_tensor(reading: Reading, node: fx.Node) -> bool:
    """Tell whether a node computes a tensor: neither an input nor a bare parameter, a size or a tuple."""
    return node.op in ("call_module", "call_function", "call_method") and node in reading.shapes


def _tensors_read(reading: Reading, node: fx.Node) -> list[fx.Node]:
    """Return the tensors whose values a node takes, through tuples; bare parameters are not among them."""
    return _tensors_behind(reading, node)[0]


def _tensors_asked(reading: Reading, node: fx.Node) -> list[fx.Node]:
    """Return the tensors of which a node takes the size alone, through arithmetic on sizes."""
    return _tensors_behind(reading, node)[1]


def _tensors_behind(reading: Reading, node: fx.Node) -> tuple[list[fx.Node], list[fx.Node]]:
    """Return the tensors that a node reads, and those that it takes as a size alone."""
    read: dict[fx.Node, None] = {}
    asked: dict[fx.Node, None] = {}
    waiting = [(source, False) for source in node.all_input_nodes]
    while waiting:
        source, by_size = waiting.pop(0)
        if source.op == "placeholder" or _computes_tensor(reading, source):
            (asked if by_size else read)[source] = None
        else:
            waiting.extend((behind, by_size or source in reading.numbers) for behind in source.all_input_nodes)
    return list(read), [source for source in asked if source not in read]


def _starts_piece(reading: Reading, node: fx.Node) -> bool:
    """Tell whether a node starts a piece: a layer that multiplies, or one that makes more or fewer values (pooling)."""
    row = reading.row_of(node)
    if row is not None and row.multiplies:
        return True
    if node.target is operator.getitem:
        return False
    size = math.prod(reading.shapes[node])
    return all(math.prod(reading.shapes[source]) != size for source in _tensors_read(reading, node))


def _piece(reading: Reading, nodes: list[fx.Node], computed: set[fx.Node]) -> Piece:
    """Make a piece of its nodes; `computed` are the nodes of all pieces."""
    inside = set(nodes)
    read = [source for node in nodes for source in _tensors_read(reading, node)]
    asked = [source for node in nodes for source in _tensors_asked(reading, node)]
    inputs = list(dict.fromkeys(source for source in read if source not in inside))
    sizes = [source for source in dict.fromkeys(asked) if source not in inside and source not in inputs]
    outputs = [node for node in nodes if any(_used_outside(reading, user, inside, computed) for user in node.users)]
    axes = axes_of([reading.layouts[node][1] for node in (*inputs, *outputs) if node in reading.layouts])
    first = nodes[0]
    return Piece(
        name=str(first.target) if first.op == "call_module" else first.name,
        nodes=tuple(nodes),
        inputs=tuple(inputs),
        sizes=tuple(sizes),
        outputs=tuple(outputs),
        axes=axes,
        shape=layer_shape(reading, nodes, [*inputs, *sizes], axes),
        rows=tuple(dict.fromkeys(row for node in nodes if (row := reading.row_of(node)))),
        tensors=tuple(tensor_size(reading, node) for node in (*inputs, *outputs)),
    )


def _used_outside(reading: Reading, user: fx.Node, inside: set[fx.Node], computed: set[fx.Node]) -> bool:
    """Tell whether a user of a tensor is, or leads through tuples to, a node outside the piece."""
    if user in inside or user in reading.numbers:
        return False
    if user in computed or user.op == "output":
        return True
    return any(_used_outside(reading, after, inside, computed) for after in user.users)
