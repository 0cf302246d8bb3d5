"""Cut a network's graph into pieces whose latency is measured one by one.

A piece starts at a convolution, a linear layer, a pooling or a sum of branches, and goes on with what works on its
output alone: normalisation, activation, reshapes. So it holds what engines fuse. Pieces that differ by nothing but
channel counts share one shape, and one grid of measurements.
"""

import copy
import math
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from autoslim_cli.network.reading import Reading
from autoslim_cli.network.rebuild import resize, shape_at, sizes, tensors_of
from autoslim_cli.network.table import Channels, LayerRow, Layout, features

Axis = tuple[Layout, ...]
"""Layouts that are varied together; the axis counts their features."""


@dataclass(frozen=True)
class Sized:
    """A tensor for one image: `fixed` values for each feature of a layout, or in all without one."""

    fixed: int
    layout: Layout

    def values(self, channels: Channels) -> int:
        """Return how many values it holds."""
        return self.fixed * features(self.layout, channels) if self.layout else self.fixed


@dataclass(frozen=True)
class Piece:
    """A run of operations that is measured as one.

    `inputs` are tensors that other pieces make, `sizes` those of which it needs the size alone, `outputs` those that
    others take. `axes` (two at most) are the channel
    counts that its latency depends on; `shape` says all the rest, equal for pieces that differ by counts alone.
    """

    name: str
    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    sizes: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]
    axes: tuple[Axis, ...]
    shape: str
    rows: tuple[LayerRow, ...]
    """The layers in it."""
    tensors: tuple[Sized, ...]
    """What it reads and writes."""

    @property
    def multiplies(self) -> bool:
        """Tell whether a convolution or linear layer is in it."""
        return any(row.multiplies for row in self.rows)

    def weights(self, channels: Channels) -> int:
        """Return how many weights and biases it reads."""
        return sum(row.params(channels) for row in self.rows)

    def counts(self, channels: Channels) -> tuple[int, ...]:
        """Return the features along each axis at some channels."""
        return tuple(sum(features(layout, channels) for layout in axis) for axis in self.axes)

    @property
    def units(self) -> tuple[tuple[str, ...], ...]:
        """Return the units along each axis."""
        return tuple(
            tuple(dict.fromkeys(s.unit for layout in axis for s in layout if s.unit is not None)) for axis in self.axes
        )


def pieces(reading: Reading) -> list[Piece]:
    """Return a network's pieces, in the order of its graph: every operation on tensors is in one of them."""
    groups = _groups(reading)
    place = {node: number for number, group in enumerate(groups) for node in group}
    found = [_piece(reading, group, place) for group in groups]
    return [piece for piece in found if piece.outputs]  # a result that nothing takes in eval mode is dead code


def _groups(reading: Reading) -> list[list[fx.Node]]:
    """Gather nodes: one that works on a single piece's tensors, and makes nothing new of their size, joins it."""
    groups: list[list[fx.Node]] = []
    place: dict[fx.Node, int] = {}
    for node in reading.graph.nodes:
        if not _makes_tensor(reading, node):
            continue
        homes = {place.get(source, -1) for source in tensors_behind(reading, node)}
        if len(homes) == 1 and -1 not in homes and not _opens(reading, node):
            (home,) = homes
        else:
            home = len(groups)
            groups.append([])
        groups[home].append(node)
        place[node] = home
    return groups


def _makes_tensor(reading: Reading, node: fx.Node) -> bool:
    """Tell whether a node computes a tensor: neither an input nor a bare parameter, a size or a tuple."""
    return node.op in ("call_module", "call_function", "call_method") and node in reading.shapes


def tensors_behind(reading: Reading, node: fx.Node, *, by_size: bool = False) -> list[fx.Node]:
    """Return the tensors that a node takes, through tuples, or (`by_size`) those that it takes as a size alone.

    Bare parameters are not among them.
    """
    read: dict[fx.Node, None] = {}
    asked: dict[fx.Node, None] = {}
    waiting = [(source, False) for source in node.all_input_nodes]
    while waiting:
        source, size = waiting.pop(0)
        if source.op == "placeholder" or _makes_tensor(reading, source):
            (asked if size else read)[source] = None
        else:
            waiting.extend((behind, size or source in reading.numbers) for behind in source.all_input_nodes)
    return [source for source in asked if source not in read] if by_size else list(read)


def _opens(reading: Reading, node: fx.Node) -> bool:
    """Tell whether a node starts a piece: a layer that multiplies, or one that makes more or fewer values (pooling)."""
    row = row_of(reading, node)
    if row is not None and row.multiplies:
        return True
    if node.target is operator.getitem:
        return False
    size = math.prod(reading.shapes[node])
    return all(math.prod(reading.shapes[source]) != size for source in tensors_behind(reading, node))


def row_of(reading: Reading, node: fx.Node) -> LayerRow | None:
    """Return the layer that a node calls, or whose parameter it reads."""
    return reading.rows.get(str(node.target)) if node.op in ("call_module", "get_attr") else None


def _piece(reading: Reading, nodes: list[fx.Node], place: dict[fx.Node, int]) -> Piece:
    """Close a piece."""
    own = set(nodes)
    inputs = list(dict.fromkeys(s for node in nodes for s in tensors_behind(reading, node) if s not in own))
    asked = dict.fromkeys(s for node in nodes for s in tensors_behind(reading, node, by_size=True))
    sizes = [source for source in asked if source not in own and source not in inputs]
    outputs = [node for node in nodes if any(_used_outside(reading, user, own, place) for user in node.users)]
    axes = _axes([reading.layouts[node][1] for node in (*inputs, *outputs) if node in reading.layouts])
    head = nodes[0]
    rows = dict.fromkeys(row for node in nodes if (row := row_of(reading, node)))
    return Piece(
        name=str(head.target) if head.op == "call_module" else head.name,
        nodes=tuple(nodes),
        inputs=tuple(inputs),
        sizes=tuple(sizes),
        outputs=tuple(outputs),
        axes=axes,
        shape=_shape(reading, nodes, [*inputs, *sizes], axes),
        rows=tuple(rows),
        tensors=tuple(sized(reading, node) for node in (*inputs, *outputs)),
    )


def sized(reading: Reading, node: fx.Node) -> Sized:
    """Return a tensor's size as a function of channels."""
    shape = reading.shapes[node][1:]
    if node not in reading.layouts:
        return Sized(math.prod(shape), ())
    dim, layout = reading.layouts[node]
    return Sized(math.prod(shape[: dim - 1]) * math.prod(shape[dim:]), layout)


def _used_outside(reading: Reading, user: fx.Node, own: set[fx.Node], place: dict[fx.Node, int]) -> bool:
    """Tell whether a user of a tensor is, or leads through tuples to, a node outside the piece."""
    if user in own or user in reading.numbers:
        return False
    if user in place or user.op == "output":
        return True
    return any(_used_outside(reading, after, own, place) for after in user.users)


def _axes(layouts: list[Layout]) -> tuple[Axis, ...]:
    """Return the axes of a piece: each layout that units decide, or all as one where they overlap or are many."""
    free = list(dict.fromkeys(layout for layout in layouts if any(s.unit for s in layout)))
    units = [unit for layout in free for unit in {s.unit for s in layout if s.unit}]
    if not free:
        return ()
    return tuple((layout,) for layout in free) if len(free) <= 2 and len(units) == len(set(units)) else (tuple(free),)


# -- what a piece is, in words ----------------------------------------------------------------------------------------


def _shape(reading: Reading, nodes: list[fx.Node], inputs: list[fx.Node], axes: tuple[Axis, ...]) -> str:
    """Say what a piece computes on tensors of which shapes; channel counts are named by their axes."""
    names = {node: f"%{number}" for number, node in enumerate((*inputs, *nodes))}
    lines = [f"{names[node]}={_tensor(reading, node, axes)}" for node in inputs]
    for node in nodes:
        arguments = fx.node.map_arg((node.args, dict(node.kwargs)), lambda n: names.get(n, _loose(n, names)))
        values = [str(value) for value in arguments[0]]
        values += [f"{k}={v}" for k, v in arguments[1].items() if k != "inplace"]
        lines.append(f"{names[node]}={_operation(reading, node)}({', '.join(values)})")
    return "; ".join([*lines, "->" + _tensor(reading, nodes[-1], axes)])


def _loose(node: fx.Node, names: dict[fx.Node, str]) -> str:
    """Say where a size or a part comes from."""
    inner = ", ".join(names.get(source, "?") for source in node.all_input_nodes)
    return f"{getattr(node.target, '__name__', node.target) if node.op != 'get_attr' else 'parameter'}({inner})"


def _tensor(reading: Reading, node: fx.Node, axes: tuple[Axis, ...]) -> str:
    """Write a tensor's shape for one image."""
    sizes: list[Any] = list(reading.shapes[node])
    if node in reading.layouts:
        dim, layout = reading.layouts[node]
        sizes[dim] = _count(layout, axes)
    return "x".join(map(str, sizes[1:])) or "1"


def _count(layout: Layout, axes: tuple[Axis, ...]) -> str:
    """Name a channel count by its axis; where several layouts share one, by what each is of the whole."""
    for letter, axis in zip("ab", axes, strict=False):
        if axis == (layout,):
            granules = {s.multiplicity for s in layout if s.unit}
            return letter if granules == {1} else f"{letter}({','.join(map(str, sorted(granules)))})"
        if layout in axis:
            return f"{letter}({'+'.join(f'{s.unit or s.base}*{s.multiplicity}' for s in layout)})"
    return str(sum(s.base for s in layout))


def _operation(reading: Reading, node: fx.Node) -> str:
    """Name an operation with all that matters but channel counts."""
    if node.op != "call_module":
        return str(getattr(node.target, "__name__", node.target))
    module: Any = reading.module.get_submodule(str(node.target))
    row, kind = row_of(reading, node), type(module).__name__
    if row is None:
        return f"{kind}({module.extra_repr().replace('inplace=True', '').strip(', ')})"
    names = ("kernel_size", "stride", "padding", "dilation", "output_padding")
    facts = [f"{name}={value}" for name in names if (value := getattr(module, name, None)) is not None]
    facts += [f"padding_mode={mode}"] if (mode := getattr(module, "padding_mode", "zeros")) != "zeros" else []
    facts += [f"group_inputs={row.group_inputs}"] if row.group_inputs else []
    facts += [f"groups={row.groups}"] if row.groups > 1 else []
    return f"{kind}({', '.join([*facts, *(['bias'] if row.bias and row.multiplies else [])])})"


# -- a piece alone ----------------------------------------------------------------------------------------------------


def alone(reading: Reading, piece: Piece, channels: Channels, images: int) -> tuple[nn.Module, list[Tensor]]:
    """Return a piece as a module of its own at some channels, with random weights, and tensors to run it on."""
    graph, copies, parts = fx.Graph(), {}, dict[str, Any]()
    given = (*piece.inputs, *piece.sizes)
    for number, node in enumerate(given):
        copies[node] = graph.placeholder(f"x{number}")

    def bring(node: fx.Node) -> fx.Node:
        if node not in copies:
            for source in node.all_input_nodes:
                bring(source)
            copies[node] = graph.node_copy(node, copies.__getitem__)
            if node.op in ("call_module", "get_attr"):
                target = str(node.target)
                parts[target] = _part(reading, node, channels)
        return copies[node]

    for node in piece.nodes:
        bring(node)
    outputs = tuple(copies[node] for node in piece.outputs)
    graph.output(outputs if len(outputs) > 1 else outputs[0])
    module = fx.GraphModule(parts, graph).eval()
    return module, [_made_up(reading, node, channels, images) for node in given]


def _made_up(reading: Reading, node: fx.Node, channels: Channels, images: int) -> Tensor:
    """Return a tensor for a piece to run on: random, or zeros where it holds places."""
    shape, dtype = reading.shape(node, channels, images), reading.dtypes[node]
    return torch.rand(shape, dtype=dtype) if dtype.is_floating_point else torch.zeros(shape, dtype=dtype)


def _part(reading: Reading, node: fx.Node, channels: Channels) -> Any:
    """Return a copy of what a node calls or reads, at some channels."""
    target = str(node.target)
    if node.op == "get_attr":
        owner, _, name = target.rpartition(".")
        holder = reading.module.get_submodule(owner)
        if name not in tensors_of(holder):  # a tensor that is no parameter: the code's own
            return getattr(holder, name)
        tensor = tensors_of(holder)[name]
        row = row_of(reading, node)
        return nn.Parameter(torch.rand(shape_at(row, name, tensor, channels) if row else tensor.shape), False)
    layer: Any = reading.module.get_submodule(target)
    row = row_of(reading, node)
    if row is None:
        return copy.deepcopy(layer)
    kept = {id(tensor): tensor for tensor in (*layer.parameters(), *layer.buffers())}  # not copied: they are replaced
    empty = copy.deepcopy(layer, kept)
    scale = 1 / math.sqrt(row.fan_in(channels))
    tensors = {
        name: torch.rand(shape_at(row, name, tensor, channels)).add_(0.5).mul_(scale) if tensor.dim() else tensor
        for name, tensor in tensors_of(layer).items()
    }
    empty._parameters, empty._buffers = dict(layer._parameters), dict(layer._buffers)
    resize(empty, sizes(row, channels), tensors)
    return empty
