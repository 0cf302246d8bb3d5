"""Say how much each channel matters by the magnitude of the weights that make it and that read it."""

import torch
from torch import Tensor, nn

from autoslim_cli.network.rebuild import axes, row_tensors
from autoslim_cli.network.table import Channels, LayerTable, Layout


@torch.no_grad()
def importance(network: nn.Module, table: LayerTable, counts: Channels) -> dict[str, Tensor]:
    """Return the importance of every channel of each free unit: (channels of the unit), 1 on the average.

    The squared L2 norm of the channel's weights, the mean over all weights of the unit's group: those of layers that
    make it, scale it or read it (group magnitude: DepGraph, Fang et al. 2023, section 4). `network` is at `counts`.
    """
    found = {}
    for unit in table.free:
        parts = [
            _of_unit(weight.pow(2).movedim(dim, 0).reshape(weight.shape[dim], -1).sum(1), layout, unit.name, counts)
            for row in table.rows
            if (weight := row_tensors(network, row).get("weight")) is not None
            for dim, layout in axes(row, "weight", weight).items()
            if any(segment.unit == unit.name for segment in layout)
        ]
        total = torch.stack(parts).mean(0) if parts else torch.ones(counts[unit.name])
        found[unit.name] = total / total.mean().clamp(min=1e-12)
    return found


def _of_unit(values: Tensor, layout: Layout, unit: str, counts: Channels) -> Tensor:
    """Return the sum of a dimension's values (features) for each channel of one unit: (channels)."""
    total, start = torch.zeros(counts[unit], device=values.device), 0
    for segment in layout:
        length = segment.features(counts)
        if segment.unit == unit:
            total += values[start : start + length].view(counts[unit], segment.multiplicity).sum(1)
        start += length
    return total
