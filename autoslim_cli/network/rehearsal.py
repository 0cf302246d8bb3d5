"""Rehearse a network that was read, at other channels: what no rule could see in its code shows there."""

import copy

import torch
from torch import fx, nn

from autoslim_cli.errors import UsageError
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.rebuild import assemble, copied, on_device, row_tensors, shape_at
from autoslim_cli.network.source import line_of
from autoslim_cli.network.table import Channels, LayerRow, LayerTable, Unit
from autoslim_cli.network.text import first_line

GOLDEN = (5**0.5 - 1) / 2
"""Its multiples, less whole numbers, are as far apart as they can be: no two units nearby get one ratio."""

_LIBRARIES = ("torch", "_operator", "operator", "builtins", "math", "None")
"""Modules of functions that a graph calls, and that view nothing as the user's own may."""


def rehearse(reading: Reading, *images: torch.Tensor) -> None:
    """Run the network at half and at one and a half times its channels, and at others for every unit.

    The last show what takes one unit's size for another's. It runs on meta tensors as `images`. Raises UsageError
    naming an operation whose code holds a size.
    """
    for ratio in (0.5, 1.5):
        _rehearse(reading, _channels(reading.table, ratio), *images)
    for channels in (uneven(reading.table), uneven(reading.table, turned=True)):
        _rehearse(reading, channels, *images)


def rehearse_order(reading: Reading, *images: torch.Tensor) -> None:
    """Run the base network on two images as it is kept here, channels-last, where its code may view tensors.

    Raises UsageError naming a view that asks for the usual order in memory.
    """
    if any(map(_may_view, reading.graph.nodes)):
        network = on_device(copy.deepcopy(reading.module), torch.device("cpu"))
        _InOrder(network, reading.graph).run_on(*images)


def _may_view(node: fx.Node) -> bool:
    """Tell whether an operation views a tensor, or is a function of the user's own, which may."""
    if node.op == "call_method":
        return node.target in ("view", "view_as")
    return node.op == "call_function" and not str(getattr(node.target, "__module__", "")).startswith(_LIBRARIES)


def _in_order(images: torch.Tensor) -> torch.Tensor:
    """Return images in the order in memory that networks are kept in."""
    return images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images


def _channels(table: LayerTable, ratio: float) -> dict[str, int]:
    """Return channels other than base for every free unit."""
    return {unit.name: unit.base if unit.pinned else _near(unit, ratio) for unit in table.units}


def uneven(table: LayerTable, *, turned: bool = False) -> dict[str, int]:
    """Return channels at other ratios to base for every free unit, between 0.5 and 1.5; or, `turned`, 2 less those."""
    near = {}
    for number, unit in enumerate(table.free, 1):
        ratio = 0.5 + number * GOLDEN % 1
        near[unit.name] = _near(unit, 2 - ratio if turned else ratio)
    return {**table.base, **near}


def _near(unit: Unit, ratio: float) -> int:
    """Return the count of a free unit that is nearest to a ratio of its base, another one than that.

    A capped unit has as much less as it would have more; one of a single granule keeps it.
    """
    if unit.capped and ratio > 1:
        ratio = 2 - ratio
    base = unit.base // unit.granule
    count = round(ratio * base)
    if count == base:
        count += -1 if unit.capped or ratio < 1 < base else 1
    return max(1, count) * unit.granule


def rebuilt(reading: Reading, channels: Channels, *, buffers: bool = False) -> nn.Module:
    """Return the network at other channels, without weights; `buffers` that channels do not size keep their values."""

    def sized(row: LayerRow) -> dict[str, torch.Tensor]:
        return {
            name: torch.empty(shape_at(row, name, tensor, channels), device="meta")
            for name, tensor in row_tensors(reading.module, row).items()
        }

    return assemble(on_meta(reading.module, buffers=buffers), reading.table, channels, sized)


def _rehearse(reading: Reading, channels: Channels, *images: torch.Tensor) -> None:
    """Run the network, rebuilt without weights at other channels: tensors have the shapes that their layouts say.

    Raises UsageError naming the operation that holds a size of the base network in its code.
    """
    expected = {node.name: reading.shape(node, channels, len(images[0])) for node in reading.shapes}
    _Rehearsal(rebuilt(reading, channels), reading.graph, expected).run_on(*images)


class _Rehearsal(fx.Interpreter):
    """Run a rebuilt network's graph and compare every tensor's shape with the expected one."""

    def __init__(self, rebuilt: nn.Module, graph: fx.Graph, expected: dict[str, tuple[int, ...]]) -> None:
        super().__init__(rebuilt, graph=graph)
        self.expected = expected
        self.at = ""

    def run_on(self, *images: torch.Tensor) -> None:
        """Run the whole graph; a failure names the node."""
        try:
            self.run(*images)
        except Exception as error:  # a size in the code fails in whatever way its operation fails
            raise UsageError(
                f"{self.at} works at the base network's channels alone ({first_line(error)}): its code holds a size"
            ) from None

    def run_node(self, n: fx.Node) -> object:
        """Compute one node and check its size."""
        self.at = str(n.target) if n.op == "call_module" else n.name
        self.at += line_of(n)
        value = super().run_node(n)
        if isinstance(value, torch.Tensor) and tuple(value.shape) != self.expected[n.name]:
            raise ValueError(f"shape {list(value.shape[1:])} where {list(self.expected[n.name][1:])} belongs")
        return value


class _InOrder(fx.Interpreter):
    """Run a network's graph in the order in memory that networks are kept in."""

    def __init__(self, network: nn.Module, graph: fx.Graph) -> None:
        super().__init__(network, graph=graph)
        self.at: fx.Node | None = None

    def run_on(self, *images: torch.Tensor) -> None:
        """Run the whole graph; a view that the order does not allow is refused."""
        try:
            self.run(*(_in_order(image) for image in images))
        except Exception as error:  # whatever the user's operations raise on an image of zeros
            if "view size is not compatible" in str(error) and self.at is not None:
                raise UsageError(
                    f"{self.at.name} views a tensor in the usual order in memory{line_of(self.at)}, and networks are "
                    "kept channels-last here, several times faster: write .reshape instead of .view, or .flatten(1)"
                ) from None

    def run_node(self, n: fx.Node) -> object:
        """Compute one node."""
        self.at = n
        return super().run_node(n)


def on_meta(module: nn.Module, *, buffers: bool = False) -> nn.Module:
    """Return a copy of a module whose tensors, its `buffers` perhaps left out, have shapes but no values.

    Raises UsageError if it cannot be copied.
    """
    memo: dict[int, torch.Tensor] = {id(p): nn.Parameter(p.detach().to("meta")) for p in module.parameters()}
    memo |= {} if buffers else {id(b): b.to("meta") for b in module.buffers()}
    return copied(module, memo)
