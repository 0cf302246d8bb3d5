"""Ask fvcore for the FLOPs of an extracted network: the independent count that ours must equal."""

import logging
import warnings
from typing import Any

import torch
from torch import nn

from autoslim_cli.cost.closed_form import flops, params
from autoslim_cli.errors import AutoslimError
from autoslim_cli.network.table import Channels, LayerTable

COUNTED = ("conv", "linear", "addmm")


def fvcore_flops(network: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Return fvcore's multiply-adds of convolutions and linear layers, batch 1, in eval mode.

    fvcore also counts BN and pooling, and a handle set to None does not stop it: we sum the operators by name.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fvcore warns of its own imports
        logging.getLogger("fvcore").setLevel(logging.ERROR)
        from fvcore.nn import FlopCountAnalysis

        was_training = network.training
        network.eval()
        try:
            device = next(network.parameters()).device
            analysis: Any = FlopCountAnalysis(network, torch.zeros(1, *input_shape, device=device))
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
            counts = analysis.by_operator()
        finally:
            network.train(was_training)
    return int(sum(counts[name] for name in COUNTED))


def agree(network: nn.Module, table: LayerTable, channels: Channels, input_shape: tuple[int, ...]) -> int:
    """Return the FLOPs on which the closed form and fvcore agree for the extracted network.

    Raises AutoslimError on any difference in FLOPs or parameters: nothing is written from a count in doubt.
    """
    ours, theirs = flops(table, channels), fvcore_flops(network, input_shape)
    held = sum(p.numel() for p in network.parameters())
    if ours != theirs or params(table, channels) != held:
        raise AutoslimError(
            f"the layer table counts {ours} FLOPs and {params(table, channels)} parameters, fvcore {theirs} and the "
            f"network {held}: an operation of this network is counted differently; please report it"
        )
    return ours
