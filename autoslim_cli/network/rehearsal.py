"""Rehearse a network that was read, at other channels: what no rule could see in its code shows there."""

import copy

import torch
from torch import fx, nn

from autoslim_cli.errors import UsageError
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.rebuild import assemble, row_tensors, shape_at
from autoslim_cli.network.source import line_of
from autoslim_cli.network.table import Channels, LayerRow, LayerTable
from autoslim_cli.network.text import first_line

RATIOS = (0.5, 1.5)


def rehearse(reading: Reading, *images: torch.Tensor) -> None:
    """Run the network at half and at one and a half times its channels, on meta tensors as `images`.

    Raises UsageError naming an operation whose code holds a size.
    """
    for ratio in RATIOS:
        _rehearse(reading, _channels(reading.table, ratio), *images)


def _channels(table: LayerTable, ratio: float) -> dict[str, int]:
    """Return channels other than base wherever a unit is free."""
    return {
        unit.name: unit.base if unit.pinned else max(1, round(ratio * unit.base / unit.granule)) * unit.granule
        for unit in table.units
    }


def _rehearse(reading: Reading, channels: Channels, *images: torch.Tensor) -> None:
    """Run the network, rebuilt without weights at other channels: tensors have the shapes that their layouts say.

    Raises UsageError naming the operation that holds a size of the base network in its code.
    """

    def sized(row: LayerRow) -> dict[str, torch.Tensor]:
        return {
            name: torch.empty(shape_at(row, name, tensor, channels), device="meta")
            for name, tensor in row_tensors(reading.module, row).items()
        }

    rebuilt = assemble(on_meta(reading.module), reading.table, channels, sized)
    expected = {node.name: reading.shape(node, channels, len(images[0])) for node in reading.shapes}
    _Rehearsal(rebuilt, reading.graph, expected).run_on(*images)


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


def on_meta(module: nn.Module) -> nn.Module:
    """Return a copy of a module whose tensors have shapes but no values.

    Raises UsageError if it holds tensors that are computed from its parameters: they cannot be copied.
    """
    memo: dict[int, torch.Tensor] = {id(p): nn.Parameter(p.detach().to("meta")) for p in module.parameters()}
    memo |= {id(b): b.to("meta") for b in module.buffers()}
    try:
        return copy.deepcopy(module, memo)
    except RuntimeError as error:
        raise UsageError(
            f"{type(module).__name__} cannot be copied ({first_line(error)}): take off weight_norm, spectral_norm or "
            "pruning first (torch.nn.utils.remove_weight_norm, prune.remove)"
        ) from None
