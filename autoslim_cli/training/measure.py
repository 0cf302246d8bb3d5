"""Measure a network: post-training BN statistics, loss and score."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoslim_cli.data.sets import Images
from autoslim_cli.data.sources import Batch
from autoslim_cli.training.score import Score
from autoslim_cli.training.task import Task


def sum_of(values: Tensor) -> Tensor:
    """Return the sum of some images' losses or scores: (), in double precision, which MPS does not have."""
    return values.float().sum() if values.device.type == "mps" else values.double().sum()


def calibration_batches(images: Images, count: int, batch: int) -> Iterator[Batch]:
    """Yield the first `count` images with evaluation transforms, in equal batches of `batch` or fewer."""
    some = images.take(count)
    batch = min(batch, len(some))
    return some.take(len(some) // batch * batch).evaluation(batch)


INITIAL_SHARE = 0.01
"""The share of a running average that may be its initial value."""


def keeps_initial_statistics(network: nn.Module, steps: int) -> bool:
    """Tell whether some BN's running averages hold more than a hundredth of their initial values after some steps."""
    momenta = [norm.momentum for norm in _norms(network)]
    return any(momentum is not None and (1 - momentum) ** steps > INITIAL_SHARE for momentum in momenta)


def _norms(network: nn.Module) -> list[_BatchNorm]:
    """Return the layers that keep running statistics."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


@torch.inference_mode()
def calibrate(network: nn.Module, batches: Iterable[Batch]) -> None:
    """Measure the BN statistics of a plain network with all weights frozen (US-Nets, section 3.3).

    The statistics are reset, then become the exact cumulative average over batches of equal weight.
    Everything but BN stays in eval mode: dropout and stochastic depth are off.
    """
    norms = _norms(network)
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
def evaluate(network: nn.Module, batches: Iterable[Batch], task: Task) -> Score:
    """Return the mean loss and score of a network in eval mode; losses are summed in double precision."""
    network.eval()
    loss, score, count = 0.0, 0.0, 0
    for images, labels in batches:
        outputs = network(images)
        task.check(outputs)
        loss += sum_of(task.losses(outputs, labels)).item()
        score += sum_of(task.scores(outputs, labels)).item()
        count += len(labels)
    return Score(loss / count, score / count)
