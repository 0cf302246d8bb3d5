"""Build what is timed: a piece by itself or a whole network, at some channels, with tensors to run it on."""

import copy
import math

import torch
from torch import Tensor, fx, nn

from autoslim_cli.latency.pieces import Piece
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.rebuild import fresh, resize, shape_at, sizes, tensors_of
from autoslim_cli.network.table import Channels


def build_network(reading: Reading, channels: Channels, images: int) -> tuple[nn.Module, list[Tensor]]:
    """Return what was read at some channels, newly initialised, and (images, ...) random inputs to run it on."""
    network = reading.traced(fresh(reading.module, reading.table, channels))
    return network, [_random_tensor(reading, node, channels, images) for node in reading.placeholders]


def build_piece(reading: Reading, piece: Piece, channels: Channels, images: int) -> tuple[nn.Module, list[Tensor]]:
    """Return a piece as a module at some channels, with random weights, and (images, ...) tensors to run it on."""
    graph = fx.Graph()
    given = (*piece.inputs, *piece.sizes)
    copies = {node: graph.placeholder(f"x{number}") for number, node in enumerate(given)}
    parts: dict[str, nn.Module | Tensor] = {}

    def copy_with_sources(node: fx.Node) -> fx.Node:
        if node not in copies:
            for source in node.all_input_nodes:
                copy_with_sources(source)
            copies[node] = copy = graph.node_copy(node, copies.__getitem__)
            if node.op in ("call_module", "get_attr"):
                copy.target = f"piece.{node.target}"  # a GraphModule has attributes of its own, as `meta`
                made = _layer if node.op == "call_module" else _bare_tensor
                parts[copy.target] = made(reading, node, channels)
        return copies[node]

    for node in piece.nodes:
        copy_with_sources(node)
    outputs = tuple(copies[node] for node in piece.outputs)
    graph.output(outputs if len(outputs) > 1 else outputs[0])
    module = fx.GraphModule(parts, graph).eval()
    return module, [_random_tensor(reading, node, channels, images) for node in given]


def _random_tensor(reading: Reading, node: fx.Node, channels: Channels, images: int) -> Tensor:
    """Return a tensor in a node's place: random, or zeros where it holds indices."""
    shape, dtype = reading.shape(node, channels, images), reading.dtypes[node]
    return torch.rand(shape, dtype=dtype) if dtype.is_floating_point else torch.zeros(shape, dtype=dtype)


def _bare_tensor(reading: Reading, node: fx.Node, channels: Channels) -> Tensor:
    """Return the tensor that a node reads, at some channels: random, if it is a parameter."""
    owner, _, name = str(node.target).rpartition(".")
    holder = reading.module.get_submodule(owner)
    registered = tensors_of(holder)
    if name not in registered:  # a constant of the code
        constant: Tensor = getattr(holder, name)
        return constant
    tensor, row = registered[name], reading.row_of(node)
    return nn.Parameter(torch.rand(shape_at(row, name, tensor, channels) if row else tensor.shape), False)


def _layer(reading: Reading, node: fx.Node, channels: Channels) -> nn.Module:
    """Return a copy of the layer that a node calls, at some channels, with random weights."""
    layer = reading.module.get_submodule(str(node.target))
    row = reading.row_of(node)
    if row is None:
        return copy.deepcopy(layer)
    shared = {id(tensor): tensor for tensor in (*layer.parameters(), *layer.buffers())}  # not copied: they are replaced
    resized = copy.deepcopy(layer, shared)
    scale = 1 / math.sqrt(row.fan_in(channels))
    tensors = {
        name: torch.rand(shape_at(row, name, tensor, channels)).add_(0.5).mul_(scale) if tensor.dim() else tensor
        for name, tensor in tensors_of(layer).items()
    }
    resized._parameters, resized._buffers = dict(layer._parameters), dict(layer._buffers)
    resize(resized, sizes(row, channels), tensors)
    return resized
