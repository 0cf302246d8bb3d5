"""Read a network: trace it to a graph, walk that at base width, rehearse what was read at other channels."""

import warnings
from typing import Any

import torch
from torch import fx, nn

from autoslim_cli.errors import UsageError, expected
from autoslim_cli.network import rules
from autoslim_cli.network.in_place import Proxy, make_out_of_place
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.rehearsal import on_meta, rehearse
from autoslim_cli.network.source import line_raised_at, note_line
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
        with torch.no_grad():
            make_out_of_place(without_values, graph, *(image.clone() for image in images))
            # Not an fx.GraphModule, which has attributes of its own, as `meta`: modules may have any names.
            graph.owning_module = without_values  # type: ignore[assignment]
            graph.eliminate_dead_code()
            walk = Walk(without_values, graph, part)
            walk.run_on(*images)
            if not any(True for _ in tensors_in(walk.outputs)):
                raise UsageError(f"the network gives no tensor in eval mode: {type(walk.outputs).__name__}")
            _refuse_unreached(module, graph, part)
            reading = walk.reading(module, graph)
            rehearse(reading, *images)
        return reading
    finally:
        module.train(was_training)


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
    """Refuse weights that are computed from others, or are no weights: their sizes are not their layer's to set."""
    for name, layer in module.named_modules():
        if type(layer).__name__ == "FrozenBatchNorm2d":  # of torchvision, and of others by that name
            raise UsageError(
                f"{f'{part}.{name}'.strip('.')} is a FrozenBatchNorm2d, whose statistics no sub-network could measure: "
                "build the network with torch.nn.BatchNorm2d, which takes the same trained weights"
            )
        if isinstance(layer, rules.LAYERS) and "weight" not in layer._parameters:
            where = f"{part}.{name}".strip(".")
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
