"""Read a network: trace it to a graph, walk that at base width, rehearse what was read at other channels."""

import re
import warnings
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import UninitializedParameter

from autoslim_cli.errors import UsageError, expected
from autoslim_cli.network import rules
from autoslim_cli.network.in_place import Proxy, make_out_of_place
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.rehearsal import on_meta, rebuilt, rehearse, rehearse_order, uneven
from autoslim_cli.network.source import line_of, line_raised_at, note_line
from autoslim_cli.network.tensors import tensors_in
from autoslim_cli.network.text import first_line
from autoslim_cli.network.traced_part import given_to, part_of
from autoslim_cli.network.walk import Walk

Shape = tuple[int, ...]

_WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}
"""What torch wraps a network in, and where that holds it."""


def read(module: nn.Module, *inputs: Shape, part: str = "") -> Reading:
    """Read `module`, which takes an image, or several, of these shapes (channels, height, width).

    It may give a tensor, or tuples and dictionaries of them. Of a `part`, as a detector's `backbone`, what it is given
    for such images is read, and it alone is slimmed: what it gives to the rest keeps its channels.
    Raises UsageError naming the operation if torch.fx cannot trace the module, if it does not run on such images, if
    it multiplies outside of convolutions and linear layers, or if it holds weights that its forward pass never runs.
    """
    was_training = module.training
    module.eval()
    try:
        traced = part_of(module, part)
        _refuse_fixed_weights(traced, part)
        images = [torch.empty(2, *shape, device="meta") for shape in inputs]
        if part:
            given = given_to(module, part, *(torch.zeros(2, *shape) for shape in inputs))
            images = [tensor.to("meta") for tensor in given]
        graph, without_values = _traced(traced, part), on_meta(module)
        as_written = _spelled_out(graph)
        with torch.no_grad():
            make_out_of_place(without_values, graph, *(image.clone() for image in images))
            # Not an fx.GraphModule, which has attributes of its own, as `meta`: modules may have any names.
            graph.owning_module = without_values  # type: ignore[assignment]
            with warnings.catch_warnings():  # older releases of torch tell of tensors that are written into the code
                warnings.filterwarnings("ignore", message="Node .* does not reference an nn.Module")
                graph.eliminate_dead_code()
            walk = Walk(without_values, graph, part)
            walk.run_on(*images)
            if not any(True for _ in tensors_in(walk.outputs)):
                raise UsageError(f"the network gives no tensor in eval mode: {type(walk.outputs).__name__}")
            _refuse_unreached(module, graph, part)
            reading = walk.reading(module, graph)
            _refuse_shared(reading)
            rehearse(reading, *images)
            _refuse_other_code(reading, as_written)
            if not part:
                rehearse_order(reading, *(torch.zeros(2, *shape) for shape in inputs))
        return reading
    finally:
        module.train(was_training)


def _refuse_shared(reading: Reading) -> None:
    """Refuse a parameter of a layer of the table that something else holds, too: rebuilt, each would have its own."""
    owners: dict[int, str] = {}
    for row in reading.table.rows:
        place, only = row.place
        for name, parameter in reading.module.get_submodule(place).named_parameters(place, recurse=False):
            if only is None or name == f"{place}.{only}".lstrip("."):
                owners.setdefault(id(parameter), name)
    for place, module in reading.module.named_modules():
        for name, parameter in module.named_parameters(place, recurse=False):
            if (first := owners.get(id(parameter), name)) != name:
                raise UsageError(
                    f"{first} and {name} are one parameter in two places, which would become two: call one layer "
                    "twice, or give each a weight of its own"
                )


def _refuse_other_code(reading: Reading, as_written: dict[fx.Node, str]) -> None:
    """Refuse code that does something else at other channels: the graph holds what it did at the base network's."""
    other = part_of(rebuilt(reading, uneven(reading.table), buffers=True), reading.part)
    now, used = _spelled_out(_traced(other, reading.part)).values(), set(reading.graph.nodes)
    for (node, then), written in zip(as_written.items(), now, strict=False):
        if then != written and node in used:
            raise UsageError(
                f"{node.name} depends on how many channels a layer has{line_of(node)}, by a number that the code reads "
                "from the layer or keeps itself: read it from a tensor's shape"
            )
    if len(as_written) != len(now):
        raise UsageError("the network's code takes another way at other channels: it must not branch on their number")


def _spelled_out(graph: fx.Graph) -> dict[fx.Node, str]:
    """Return what each node of a graph does, on which other nodes, with which numbers."""
    places = {node: place for place, node in enumerate(graph.nodes)}

    def told(value: object) -> str:
        if isinstance(value, fx.Node):
            return f"node {places[value]}"
        if isinstance(value, (tuple, list)):
            return f"({', '.join(map(told, value))})"
        if isinstance(value, dict):
            return f"({', '.join(f'{key}={told(one)}' for key, one in value.items())})"
        if isinstance(value, slice):
            return f"{told(value.start)}:{told(value.stop)}:{told(value.step)}"
        return repr(value) if isinstance(value, (int, float, str, type(None))) else type(value).__name__

    def target(node: fx.Node) -> str:
        name = str(getattr(node.target, "__name__", node.target))
        return re.sub(r"_tensor_constant\d+$", "_tensor_constant", name)  # fx counts on where it has traced before

    return {node: f"{node.op} {target(node)} {told(node.args)} {told(node.kwargs)}" for node in graph.nodes}


def expected_network(what: str, given: object) -> None:
    """Raise UsageError if an argument is no network."""
    expected(what, given, nn.Module, "a network, an nn.Module,")


class _Tracer(fx.Tracer):
    """Trace down to layers: torch's own modules, and subclasses of those that hold weights as they do."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return the stand-in for a node's value while the code runs."""
        return Proxy(node, self)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """Note at a node the file and the line that it comes from, for whoever has to refuse it."""
        node = super().create_node(*args, **kwargs)
        note_line(node)
        return node

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Keep a subclass of a known layer whole if it adds no weights of its own."""
        return super().is_leaf_module(m, module_qualified_name) or rules.is_layer(m)


def _traced(module: nn.Module, part: str) -> fx.Graph:
    """Trace a module, a part of a larger one, to a graph over the larger one.

    Raises UsageError if its forward pass changes what it holds.
    """
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    before = {name: tensor._version for name, tensor in tensors.items()}
    graph = _trace(module)
    for name, tensor in tensors.items():
        if tensor._version != before[name]:
            raise UsageError(f"the forward pass changes {name} in place: a network that was read must not remember")
    for node in graph.nodes:
        if part and node.op in ("call_module", "get_attr"):
            node.target = f"{part}.{node.target}"
    return graph


def _trace(module: nn.Module) -> fx.Graph:
    """Trace a module to a graph."""
    if inner := _WRAPPERS.get(type(module).__name__):
        raise UsageError(f"{type(module).__name__} only runs a network: pass that network itself, its .{inner}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _Tracer().trace(module)
    except Exception as error:  # fx passes on whatever the user's forward raises when it meets a proxy
        raise UsageError(
            f"torch.fx cannot trace {type(module).__name__}: "
            f"{first_line(error).partition('. ')[0]}{line_raised_at(error)}; "
            "its forward pass must not branch on the values of tensors, or in a recipe model.trace must name a part "
            "that does not: " + ", ".join(name for name, _ in module.named_children())
        ) from None


def _refuse_fixed_weights(module: nn.Module, part: str) -> None:
    """Refuse weights that are computed from others, or are no weights: their sizes are not their layer's to set.

    So are statistics that are not measured for each sub-network.
    """
    for name, layer in module.named_modules():
        where = f"{part}.{name}".strip(".")
        if any(isinstance(tensor, UninitializedParameter) for tensor in layer.parameters(recurse=False)):
            raise UsageError(
                f"{where} is a {type(layer).__name__}, which has no weights yet: run the network on an image where it "
                "is built, or write the number of channels"
            )
        if (kind := type(layer).__name__) in ("FrozenBatchNorm2d", "SyncBatchNorm"):  # of torchvision, and of others
            why = "whose statistics no sub-network could measure"
            if kind == "SyncBatchNorm":
                why = "which a training on one device cannot run, and every process measures statistics with the others"
            raise UsageError(
                f"{where} is a {kind}, {why}: build the network with torch.nn.BatchNorm2d, which takes the same "
                "trained weights"
            )
        if isinstance(layer, _InstanceNorm) and layer.track_running_stats:
            raise UsageError(
                f"{where} is a {kind} that keeps running statistics, which are not measured for each sub-network: "
                "build it with track_running_stats=False"
            )
        if isinstance(layer, rules.LAYERS) and "weight" not in layer._parameters:
            raise UsageError(
                f"{where} computes its weight from others (weight_norm, spectral_norm, pruning): take off what does so "
                "(torch.nn.utils.parametrize.remove_parametrizations, remove_weight_norm, prune.remove), or write a "
                "subclass of the layer with one gain for each output channel, as autoslim/wdsr has it"
            )


def _refuse_unreached(module: nn.Module, graph: fx.Graph, part: str) -> None:
    """Refuse weights that the forward pass never runs: the units of such layers cannot be known."""
    reached = {str(node.target) for node in graph.nodes if node.op in ("call_module", "get_attr")}
    prefix = f"{part}." if part else ""
    for name, _ in module.named_parameters():
        parents = {name.rsplit(".", depth)[0] for depth in range(name.count(".") + 1)}
        if name.startswith(prefix) and not (parents | {name}) & reached:
            raise UsageError(
                f"the forward pass never runs the weight {name}, so its channels cannot be read; "
                "build the network without it (model.args)"
            )
