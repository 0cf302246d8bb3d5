"""Ask fvcore for the FLOPs of an extracted network: the independent count that ours must equal."""

import logging
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from autoslim_cli.cost.closed_form import flops, params
from autoslim_cli.errors import AutoslimError
from autoslim_cli.network.modes import modes_kept
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.table import Channels
from autoslim_cli.network.tensors import tensors_in

COUNTED = ("conv", "linear", "addmm")


class Flat(nn.Module):
    """A network whose outputs are a tuple of tensors, whatever holds them: tracers take no dictionaries."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return all tensors that the network gives."""
        return tuple(tensors_in(self.network(*inputs)))


def fvcore_flops(network: nn.Module, *inputs: tuple[int, ...]) -> int:
    """Return fvcore's multiply-adds of convolutions and linear layers, in eval mode, for one image.

    `inputs` are the shapes of the tensors that the network takes, without the batch.

    fvcore also counts BN and pooling, and a handle set to None does not stop it: we sum the operators by name.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fvcore warns of its own imports
        logging.getLogger("fvcore").setLevel(logging.ERROR)
        from fvcore.nn import FlopCountAnalysis

        with modes_kept(network):
            network.eval()
            device = next(network.parameters()).device
            images = tuple(torch.zeros(1, *shape, device=device) for shape in inputs)
            analysis: Any = FlopCountAnalysis(Flat(network), images)
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
            counts = analysis.by_operator()
    return int(sum(counts[name] for name in COUNTED))


def agree(network: nn.Module, reading: Reading, channels: Channels) -> int:
    """Return the FLOPs on which the closed form and fvcore agree for the extracted network, or its part that was read.

    Raises AutoslimError on any difference in FLOPs or parameters: nothing is written from a count in doubt.
    """
    table = reading.table
    ours, theirs = flops(table, channels), fvcore_flops(reading.traced(network), *reading.inputs)
    held = sum(p.numel() for p in network.parameters())
    if ours != theirs or params(table, channels) != held:
        raise AutoslimError(
            f"the layer table counts {ours} FLOPs and {params(table, channels)} parameters, fvcore {theirs} and the "
            f"network {held}: an operation of this network is counted differently; please report it"
        )
    return ours
