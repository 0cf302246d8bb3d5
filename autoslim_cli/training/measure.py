"""Measure a network: post-training BN statistics, loss and top-1."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoslim_cli.data.sources import Batch
from autoslim_cli.training.score import Score


def sum_of(losses: Tensor) -> Tensor:
    """Return the sum of losses in double precision, which MPS does not have."""
    return losses.sum() if losses.device.type == "mps" else losses.double().sum()


@torch.inference_mode()
def calibrate(network: nn.Module, batches: Iterable[Batch]) -> None:
    """Measure the BN statistics of a plain network with all weights frozen (US-Nets, section 3.3).

    The statistics are reset, then become the exact cumulative average over batches of equal weight.
    Everything but BN stays in eval mode: dropout and stochastic depth are off.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's cumulative moving average
        norm.train()
    for images, _ in batches:
        network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


@torch.inference_mode()
def evaluate(network: nn.Module, batches: Iterable[Batch]) -> Score:
    """Return loss and top-1 of a network in eval mode; losses are summed in double precision."""
    network.eval()
    loss, correct, count = 0.0, 0, 0
    for images, labels in batches:
        logits = network(images).float()
        loss += sum_of(F.cross_entropy(logits, labels, reduction="none")).item()
        correct += int((logits.argmax(1) == labels).sum())
        count += len(labels)
    return Score(loss / count, correct / count)
