"""Read a network: trace it to a graph, walk that at base width, rehearse what was read at other channels."""

import warnings
from typing import Any

import torch
from torch import fx, nn

from autoslim_cli.errors import UsageError
from autoslim_cli.network import rules
from autoslim_cli.network.in_place import Proxy, make_out_of_place
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.rehearsal import first_line, on_meta, rehearse
from autoslim_cli.network.source import line_raised_at, note_line
from autoslim_cli.network.walk import Walk


def read(module: nn.Module, input_shape: tuple[int, ...], classes: int | None = None) -> Reading:
    """Read `module`, which takes images of `input_shape` (channels, height, width) and gives logits.

    Raises UsageError naming the operation if torch.fx cannot trace the module, if it does not run on such an image or
    does not give one logit for each of `classes`, if it multiplies outside of convolutions and linear layers, or if it
    holds weights that its forward pass never runs.
    """
    was_training = module.training
    module.eval()
    try:
        graph, without_values = _traced(module), on_meta(module)
        images = torch.empty(2, *input_shape, device="meta")
        with torch.no_grad():
            make_out_of_place(without_values, graph, images.clone())
            graph.eliminate_dead_code()
            walk = Walk(fx.GraphModule(without_values, graph))
            _refuse_other_outputs(walk.run_on(images), classes)
            _refuse_unreached(module, graph)
            reading = walk.reading(module, graph)
            rehearse(reading, images)
        return reading
    finally:
        module.train(was_training)


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


def _traced(module: nn.Module) -> fx.Graph:
    """Trace a module to a graph. Raises UsageError if its forward pass changes what it holds."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    before = {name: tensor._version for name, tensor in tensors.items()}
    graph = _trace(module)
    for name, tensor in tensors.items():
        if tensor._version != before[name]:
            raise UsageError(f"the forward pass changes {name} in place: a network that was read must not remember")
    return graph


def _trace(module: nn.Module) -> fx.Graph:
    """Trace a module to a graph."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _Tracer().trace(module)
    except Exception as error:  # fx passes on whatever the user's forward raises when it meets a proxy
        raise UsageError(
            f"torch.fx cannot trace {type(module).__name__}: {first_line(error)}{line_raised_at(error)}; "
            "its forward pass must not branch on the values of tensors"
        ) from None


def _refuse_other_outputs(output: object, classes: int | None) -> None:
    """Refuse a network that does not give (batch, classes)."""
    shape = list(output.shape) if isinstance(output, torch.Tensor) else None
    if shape is None or len(shape) != 2:
        what = f"a tensor of shape {shape}" if shape else type(output).__name__
        raise UsageError(f"the network gives {what} in eval mode, not logits of shape (batch, classes)")
    if classes is not None and shape[1] != classes:
        raise UsageError(f"model.classes: {classes}, but the network gives {shape[1]} logits; see model.args")


def _refuse_unreached(module: nn.Module, graph: fx.Graph) -> None:
    """Refuse weights that the forward pass never runs: the units of such layers cannot be known."""
    reached = {str(node.target) for node in graph.nodes if node.op in ("call_module", "get_attr")}
    for name, _ in module.named_parameters():
        parents = {name.rsplit(".", depth)[0] for depth in range(name.count(".") + 1)}
        if not (parents | {name}) & reached:
            raise UsageError(
                f"the forward pass never runs the weight {name}, so its channels cannot be read; "
                "build the network without it (model.args)"
            )
