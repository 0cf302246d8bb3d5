"""Read a network: walk its torch.fx graph at base width into a layer table and channel units.

Every tensor carries its channel layout. Understood operations open, keep, merge, split or join units; any other
operation pins the units that it touches, with the reason. Never a guess: the walk ends with a rehearsal at other
channels.
"""

import warnings
from dataclasses import fields
from typing import Any, cast

import torch
from torch import fx, nn

from autoslim_cli.errors import UsageError
from autoslim_cli.network import rules
from autoslim_cli.network.in_place import Proxy, make_out_of_place
from autoslim_cli.network.open_units import (
    NOTHING_DECIDES,
    OpenLayout,
    OpenRow,
    OpenSegment,
    OpenUnit,
    Tagged,
    merge,
    pin,
    resolve,
)
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.rehearsal import first_line, on_meta, rehearse
from autoslim_cli.network.table import LayerRow, LayerTable, Layout, Segment, Unit


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
            _refuse_unreached(module, walk.reached)
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

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Keep a subclass of a known layer whole if it adds no weights of its own."""
        return super().is_leaf_module(m, module_qualified_name) or rules.is_layer(m)


def _traced(module: nn.Module) -> fx.Graph:
    """Trace a module to a graph. Raises UsageError if its forward pass changes what it holds."""
    held = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    before = {name: tensor._version for name, tensor in held.items()}
    graph = _trace(module)
    for name, tensor in held.items():
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
            f"torch.fx cannot trace {type(module).__name__}: {first_line(error)}; "
            "its forward pass must not branch on the values of tensors"
        ) from None


def _refuse_other_outputs(output: Any, classes: int | None) -> None:
    """Refuse a network that does not give (batch, classes)."""
    shape = list(output.shape) if isinstance(output, torch.Tensor) else None
    if shape is None or len(shape) != 2:
        what = f"a tensor of shape {shape}" if shape else type(output).__name__
        raise UsageError(f"the network gives {what} in eval mode, not logits of shape (batch, classes)")
    if classes is not None and shape[1] != classes:
        raise UsageError(f"model.classes: {classes}, but the network gives {shape[1]} logits; see model.args")


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
    """Run the graph on meta tensors and carry each tensor's channel layout along, by the tables of `rules/`."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module)
        self.tags: dict[fx.Node, Tagged | None] = {}
        self.parts: dict[fx.Node, list[Tagged]] = {}
        self.values: dict[fx.Node, Any] = {}
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.dtypes: dict[fx.Node, torch.dtype] = {}
        self.numbers: set[fx.Node] = set()
        self.makers: dict[int, tuple[fx.Node, Any]] = {}  # by storage: who made it, and the storage itself
        self.lies_in: dict[fx.Node, fx.Node] = {}
        self.units: list[OpenUnit] = []
        self.rows: dict[str, OpenRow] = {}
        self.mixing: set[fx.Node] = set()
        self.notes: list[str] = []
        self.reached: set[str] = set()
        self.fixed_groups = rules.fixed_groups(graph_module.graph)

    def run_on(self, images: torch.Tensor) -> Any:
        """Walk the whole graph and return its output; a failure names the node."""
        try:
            return self.run(images)
        except UsageError as error:
            raise UsageError(first_line(error)) from None  # the interpreter has added where it was
        except Exception as error:  # whatever the user's operations raise on an image that does not suit them
            shape = list(images.shape[1:])
            raise UsageError(
                f"the network does not run on an image of {shape}: {first_line(error)}; "
                "check model.input, model.args and model.strides"
            ) from None

    def run_node(self, n: fx.Node) -> Any:
        """Compute one node's shape, then find its output's layout by the rule for its operation."""
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            self.shapes[n], self.dtypes[n] = tuple(value.shape), value.dtype
            storage = value.untyped_storage()
            maker, _ = self.makers.setdefault(storage._cdata, (n, storage))
            if maker is not n:
                self.lies_in[n] = maker
        elif not _holds_tensor(value):
            self.numbers.add(n)
        if isinstance(value, (int, float, bool)):
            self.values[n] = value
        if n.op in ("call_module", "get_attr"):
            self.reached.add(str(n.target))
        if n.op == "output":
            for source in n.all_input_nodes:
                if tag := self.tags.get(source):
                    pin(tag.layout, "the network's output")
        elif n.op == "placeholder" or not _holds_tensor(value):
            self.tags[n] = None
        elif n.op == "get_attr":
            self.tags[n] = rules.bare_parameter(self, n)
        else:
            self.tags[n] = rules.find(self, n)(self, n)
        return value

    # -- what the rules ask -----------------------------------------------------------------------------------------

    def called(self, node: fx.Node) -> nn.Module:
        """Return the module that a node calls."""
        return cast(nn.Module, self.fetch_attr(str(node.target)))

    def tag(self, node: fx.Node) -> Tagged | None:
        """Return a tensor node's layout in the units that stand now; None if it is of fixed shape."""
        tag = self.tags.get(node)
        return tag and Tagged(tag.dim, resolve(tag.layout), tag.count, tag.outer)

    def is_tensor(self, node: fx.Node) -> bool:
        """Tell whether a node's value is one tensor."""
        return node in self.shapes

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """Return a tensor node's shape at base width, for two images."""
        return self.shapes[node]

    def open(self, count: int, layer: str | None) -> OpenLayout:
        """Open a unit, produced by `layer` if by any."""
        unit = OpenUnit(count, len(self.units), [layer] if layer else [])
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
        names = _named(self.rows)

        def close(layout: OpenLayout) -> Layout:
            return tuple(
                Segment(names[id(s.unit)][0] if s.unit else None, s.base, s.multiplicity) for s in resolve(layout)
            )

        rows = tuple(_close_row(name, row, close) for name, row in self.rows.items())
        units = tuple(
            Unit(name, layers, unit.base, unit.granule, unit.pinned, not unit.rearranged)
            for name, layers, unit in names.values()
        )
        base = {unit.name: unit.base for unit in units}
        other = sum(p.numel() for p in module.parameters()) - sum(row.params(base) for row in rows)
        table = LayerTable(rows, units, other, tuple(dict.fromkeys(self.notes)))
        layouts = {node: (tag.dim, close(tag.layout)) for node, tag in self.tags.items() if tag}
        return Reading(
            module,
            graph,
            table,
            layouts,
            mixing=frozenset(self.mixing),
            shapes=self.shapes,
            dtypes=self.dtypes,
            numbers=frozenset(self.numbers),
            memory=self.lies_in,
        )


Named = dict[int, tuple[str, tuple[str, ...], OpenUnit]]


def _named(rows: dict[str, OpenRow]) -> Named:
    """Give every unit that stands its name, by id, in the order of the table: its first layer, where that is free."""
    order = {name: place for place, name in enumerate(rows)}
    found: Named = {}
    taken: set[str] = set()
    for name, row in rows.items():
        for segment in resolve(row.outputs) + resolve(row.inputs):
            unit = segment.unit
            if unit is None or id(unit) in found:
                continue
            if not unit.layers:  # bare parameters alone
                unit.pin(NOTHING_DECIDES)
            layers = tuple(sorted(set(unit.layers), key=order.__getitem__)) or (name,)
            free = [layer for layer in layers if layer not in taken]
            title = free[0] if free else f"{layers[0]}#{len(found)}"
            taken.add(title)
            found[id(unit)] = (title, layers, unit)
    return found


def _close_row(name: str, row: OpenRow, close: Any) -> LayerRow:
    """Turn a row under way into a line of the table."""
    values = {field.name: getattr(row, field.name) for field in fields(row)}
    return LayerRow(name=name, **{**values, "inputs": close(row.inputs), "outputs": close(row.outputs)})


def _holds_tensor(value: Any) -> bool:
    """Tell whether a node's value is or contains a tensor."""
    if isinstance(value, (tuple, list)):
        return any(map(_holds_tensor, value))
    return isinstance(value, torch.Tensor)
