"""Walk the graph of a network at base width, carrying each tensor's channel layout along.

Understood operations open, keep, merge, split or join units; any other operation pins the units that it touches, with
the reason. Never a guess.
"""

import torch
from torch import fx, nn

from autoslim_cli.errors import UsageError
from autoslim_cli.network import rules
from autoslim_cli.network.facts import Parts, Pin
from autoslim_cli.network.layouts import Tagged, resolve_tag
from autoslim_cli.network.open_table import OpenTable
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.rules import Operation, Value
from autoslim_cli.network.source import line_of
from autoslim_cli.network.text import first_line

OUTPUT = "the network's output"
"""Why the units of what a network gives are pinned."""


class Walk(fx.Interpreter):
    """Run the graph on meta tensors; ask the rules where each tensor's channels lie, and enter the facts they find."""

    def __init__(self, module: nn.Module, graph: fx.Graph, part: str) -> None:
        super().__init__(module, graph=graph)
        self.part = part
        self.taken = f"what {part} gives to the rest of the network" if part else OUTPUT
        self.outputs: object = None
        self.order = {node: place for place, node in enumerate(graph.nodes)}
        self.fixed_groups = rules.fixed_groups(graph)
        self.values: dict[fx.Node, Value] = {}
        self.of_images: set[fx.Node] = set()
        self.tensors = _Tensors()
        self.table = OpenTable()
        self.at = ""

    def run_on(self, *images: torch.Tensor) -> None:
        """Walk the whole graph; a failure names the node."""
        try:
            self.outputs = self.run(*images)
        except UsageError as error:
            raise UsageError(f"{first_line(error)}{self.at}") from None
        except Exception as error:  # whatever the user's operations raise on an image that does not suit them
            if "device meta" in str(error):
                raise UsageError(
                    f"the network computes with a tensor that is neither a parameter nor a buffer{self.at}: make it "
                    "one with register_buffer, so that it goes where the network goes"
                ) from None
            shapes = " and ".join(str(list(image.shape[1:])) for image in images)
            raise UsageError(
                f"the network does not run on an image of {shapes}: {first_line(error)}{self.at}; "
                "check model.input, model.args and model.strides"
            ) from None

    def run_node(self, n: fx.Node) -> object:
        """Compute one node's shape, then find its output's layout by the rule for its operation."""
        self.at = line_of(n)
        if n.op == "placeholder" or not self.of_images.isdisjoint(n.all_input_nodes):
            self.of_images.add(n)
        value = super().run_node(n)
        self.tensors.see(n, value)
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else None
        number = value if isinstance(value, (int, float, bool)) else None
        output = Value(shape, number=number)
        if n.op == "output":
            for source in n.all_input_nodes:
                if tag := self._now(source).tag:
                    self.table.enter(n, Pin(tag.layout, self.taken))
        elif n.op != "placeholder" and _holds_tensor(value):
            output = self._understood(n, output)
        self.values[n] = output
        return value

    def _understood(self, node: fx.Node, output: Value) -> Value:
        """Return what a rule says of a node's value, and enter the facts that it found."""
        inputs = {source: self._now(source) for source in node.all_input_nodes}
        of_images = node in self.of_images
        operation = Operation(node, self.order[node], self._layer(node), inputs, output, self.fixed_groups, of_images)
        tag, facts = rules.find(operation)(operation)
        parts: tuple[Tagged, ...] = ()
        for fact in facts:
            if isinstance(fact, Parts):
                parts = fact.tags
            else:
                self.table.enter(node, fact)
        return Value(output.shape, tag, parts, output.number)

    def _now(self, node: fx.Node) -> Value:
        """Return what is known of a node, in the units that stand now."""
        value = self.values[node]
        parts = tuple(tag for part in value.parts if (tag := resolve_tag(part)))
        return Value(value.shape, resolve_tag(value.tag), parts, value.number)

    def _layer(self, node: fx.Node) -> nn.Module | None:
        """Return the module that a node calls, or that holds the tensor that it fetches."""
        if node.op == "call_module":
            return self.module.get_submodule(str(node.target))
        return self.module.get_submodule(str(node.target).rpartition(".")[0]) if node.op == "get_attr" else None

    def reading(self, module: nn.Module, graph: fx.Graph) -> Reading:
        """Return what was read of a module whose graph was walked."""
        table, layouts = self.table.closed(module, {node: v.tag for node, v in self.values.items() if v.tag})
        return Reading(
            module,
            graph,
            table,
            layouts,
            mixing=frozenset(self.table.mixing),
            shapes={node: v.shape for node, v in self.values.items() if v.shape is not None},
            dtypes=self.tensors.dtypes,
            numbers=frozenset(self.tensors.numbers),
            memory=self.tensors.lies_in,
            part=self.part,
            outputs=self.outputs,
        )


class _Tensors:
    """Note the types of the values of nodes, and in whose memory they lie."""

    def __init__(self) -> None:
        self.dtypes: dict[fx.Node, torch.dtype] = {}
        self.numbers: set[fx.Node] = set()
        self.lies_in: dict[fx.Node, fx.Node] = {}
        self.makers: dict[
            int, tuple[fx.Node, torch.UntypedStorage]
        ] = {}  # by storage: who made it, and the storage itself

    def see(self, node: fx.Node, value: object) -> None:
        """Note what one node gave."""
        if not isinstance(value, torch.Tensor):
            if not _holds_tensor(value):
                self.numbers.add(node)
            return
        self.dtypes[node] = value.dtype
        storage = value.untyped_storage()
        maker, _ = self.makers.setdefault(storage._cdata, (node, storage))
        if maker is not node:
            self.lies_in[node] = maker


def _holds_tensor(value: object) -> bool:
    """Tell whether a node's value is or contains a tensor."""
    if isinstance(value, (tuple, list)):
        return any(map(_holds_tensor, value))
    if isinstance(value, dict):
        return any(map(_holds_tensor, value.values()))
    return isinstance(value, torch.Tensor)
