"""Read a network: walk its torch.fx graph at base width into a layer table and channel units.

Every tensor carries its channel layout. Understood operations open, keep, merge or join units; any other operation
pins the units that it touches, with the reason. Never a guess.
"""

import copy
import math
import operator
import warnings
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import fx, nn

from autoslim_cli.errors import UsageError
from autoslim_cli.network import rules
from autoslim_cli.network.open_units import OpenLayout, OpenRow, OpenSegment, OpenUnit, Tagged, merge, pin
from autoslim_cli.network.table import LayerRow, LayerTable, Layout, Segment, Unit

OUT_OF_PLACE: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}


@dataclass(frozen=True)
class Reading:
    """A network that was read: the module, its graph in eval mode, and what they say.

    `layouts` gives each tensor node's channel dimension and layout; nodes without one are of fixed shape.
    `mixing` holds the nodes whose output channels depend on other input channels than their own.
    """

    module: nn.Module
    graph: fx.Graph
    table: LayerTable
    layouts: dict[fx.Node, tuple[int, Layout]]
    mixing: frozenset[fx.Node]


def read(module: nn.Module, input_shape: tuple[int, ...]) -> Reading:
    """Read `module`, which takes images of `input_shape` (channels, height, width).

    Raises UsageError naming the operation if torch.fx cannot trace the module, if it does not run on such an image,
    or if it holds weights that its forward pass never runs.
    """
    was_training = module.training
    module.eval()
    try:
        graph = _trace(module)
        walk = Walk(fx.GraphModule(copy.deepcopy(module).to("meta"), graph))
        with torch.no_grad():
            walk.run_on(torch.empty(2, *input_shape, device="meta"))
        _refuse_unreached(module, walk.reached)
        return walk.reading(module, graph)
    finally:
        module.train(was_training)


def _trace(module: nn.Module) -> fx.Graph:
    """Trace to a graph without in-place operations: forks of an evaluation share their tensors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = fx.Tracer().trace(module)
    except Exception as error:  # fx passes on whatever the user's forward raises when it meets a proxy
        raise UsageError(
            f"torch.fx cannot trace {type(module).__name__}: {_first_line(error)}; "
            "its forward pass must not branch on the values of tensors"
        ) from None
    for node in graph.nodes:
        if node.op == "call_function":
            node.target = OUT_OF_PLACE.get(node.target, node.target)
        if node.op == "call_method" and node.target.endswith("_") and not node.target.endswith("__"):
            node.target = node.target.removesuffix("_")
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
    return graph


def _refuse_unreached(module: nn.Module, reached: set[str]) -> None:
    """Refuse weights that the forward pass never runs: the units of such layers cannot be known."""
    for name, _ in module.named_parameters():
        parents = {name.rsplit(".", depth)[0] for depth in range(name.count(".") + 1)}
        if not (parents | {name}) & reached:
            raise UsageError(
                f"the forward pass never runs the weight {name}, so its channels cannot be read; "
                "build the network without it (model.args)"
            )


class Walk(fx.Interpreter):
    """Run the graph on meta tensors and carry each tensor's channel layout along, by the rules of `rules.py`."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module)
        self.tags: dict[fx.Node, Tagged | None] = {}
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.units: list[OpenUnit] = []
        self.rows: dict[str, OpenRow] = {}
        self.mixing: set[fx.Node] = set()
        self.notes: list[str] = []
        self.reached: set[str] = set()

    def run_on(self, images: torch.Tensor) -> None:
        """Walk the whole graph; a failure names the node."""
        try:
            self.run(images)
        except (RuntimeError, ValueError, TypeError) as error:
            shape = list(images.shape[1:])
            raise UsageError(
                f"the network does not run on an image of {shape}: {_first_line(error)}; "
                "check model.input, model.args and model.strides"
            ) from None

    def run_node(self, n: fx.Node) -> Any:
        """Compute one node's shape, then find its output's layout by the rule for its operation."""
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            self.shapes[n] = tuple(value.shape)
        if n.op in ("call_module", "get_attr"):
            self.reached.add(str(n.target))
        if n.op == "output":
            for source in n.all_input_nodes:
                if tag := self.tags.get(source):
                    pin(tag.layout, "the network's output")
        elif n.op in ("placeholder", "get_attr") or not _holds_tensor(value):
            self.tags[n] = None
        else:
            self.tags[n] = rules.find(self, n)(self, n)
        return value

    # -- what the rules ask -----------------------------------------------------------------------------------------

    def called(self, node: fx.Node) -> nn.Module:
        """Return the module that a node calls."""
        return cast(nn.Module, self.fetch_attr(str(node.target)))

    def tag(self, node: fx.Node) -> Tagged | None:
        """Return a tensor node's layout; None if it is of fixed shape."""
        return self.tags[node]

    def is_tensor(self, node: fx.Node) -> bool:
        """Tell whether a node's value is one tensor."""
        return node in self.shapes

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """Return a tensor node's shape at base width, for two images."""
        return self.shapes[node]

    def open(self, layer: str, count: int) -> OpenLayout:
        """Open a unit produced by `layer`."""
        unit = OpenUnit(count, len(self.units), [layer])
        self.units.append(unit)
        return (OpenSegment(unit, count),)

    def enter(self, node: fx.Node, row: OpenRow) -> OpenRow:
        """Enter a layer into the table, or meet the same layer again: both calls then share their units."""
        name = str(node.target)
        known = self.rows.setdefault(name, row)
        if known is not row:
            merge(known.inputs, row.inputs, f"the second call of {name}")
            merge(known.outputs, row.outputs, f"the second call of {name}")
            known.positions += row.positions
        return known

    # -- what comes out ---------------------------------------------------------------------------------------------

    def reading(self, module: nn.Module, graph: fx.Graph) -> Reading:
        """Close the units, name each after its first layer, and write the table."""
        order = {name: place for place, name in enumerate(self.rows)}
        roots = [unit for unit in self.units if unit.parent is None]
        layers = {id(unit): tuple(sorted(set(unit.layers), key=order.__getitem__)) for unit in roots}

        def close(layout: OpenLayout) -> Layout:
            return tuple(
                Segment(layers[id(s.unit.root())][0] if s.unit else None, s.base, s.multiplicity) for s in layout
            )

        rows = tuple(_close_row(name, row, close) for name, row in self.rows.items())
        units = tuple(
            Unit(layers[id(unit)][0], layers[id(unit)], unit.base, unit.granule, unit.pinned)
            for unit in sorted(roots, key=lambda unit: order[layers[id(unit)][0]])
        )
        base = {unit.name: unit.base for unit in units}
        other = sum(p.numel() for p in module.parameters()) - sum(row.params(base) for row in rows)
        table = LayerTable(rows, units, other, tuple(dict.fromkeys(self.notes)))
        layouts = {node: (tag.dim, close(tag.layout)) for node, tag in self.tags.items() if tag}
        return Reading(module, graph, table, layouts, frozenset(self.mixing))


def _close_row(name: str, row: OpenRow, close: Any) -> LayerRow:
    """Turn a row under way into a line of the table."""
    return LayerRow(
        name=name,
        kind=cast(Any, row.kind),
        inputs=close(row.inputs),
        outputs=close(row.outputs),
        kernel=math.prod(getattr(row.module, "kernel_size", ())),
        positions=row.positions,
        group_inputs=row.group_inputs,
        weight=getattr(row.module, "weight", None) is not None,
        bias=getattr(row.module, "bias", None) is not None,
    )


def _holds_tensor(value: Any) -> bool:
    """Tell whether a node's value is or contains a tensor."""
    if isinstance(value, (tuple, list)):
        return any(map(_holds_tensor, value))
    return isinstance(value, torch.Tensor)


def _first_line(error: BaseException) -> str:
    """Return the first line of an exception's text, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
