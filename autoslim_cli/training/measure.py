"""Measure a network: post-training BN statistics, loss and score."""

from collections.abc import Iterable, Iterator
from itertools import zip_longest

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoslim_cli.data.batch import Batch, forward, images_in
from autoslim_cli.data.sets import Images
from autoslim_cli.errors import advice_on_few_values
from autoslim_cli.training.distributed import Ranks
from autoslim_cli.training.score import Score
from autoslim_cli.training.task import Task

ONE = Ranks()


def calibration_batches(images: Images, count: int, batch: int, ranks: Ranks = ONE) -> Iterator[Batch]:
    """Yield the first `count` images with evaluation transforms, in equal batches of `batch` or fewer.

    Each process of a job gets its share of the batches.
    """
    some = images.take(count)
    batch = min(batch, len(some))
    return some.take(len(some) // batch * batch).evaluation(batch, rank=ranks.rank, size=ranks.size)


INITIAL_SHARE = 0.01
"""The share of a running average that may be its initial value."""


def keeps_initial_statistics(network: nn.Module, steps: int) -> bool:
    """Tell whether some BN's running averages hold more than a hundredth of their initial values after some steps."""
    momenta = [norm.momentum for norm in _norms(network)]
    return any(momentum is not None and (1 - momentum) ** steps > INITIAL_SHARE for momentum in momenta)


def _norms(network: nn.Module) -> list[_BatchNorm]:
    """Return the layers that keep running statistics."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def running_averages(network: nn.Module) -> list[Tensor]:
    """Return the running means and variances of a network, each (channels,)."""
    both = [(norm.running_mean, norm.running_var) for norm in _norms(network)]
    return [tensor for pair in both for tensor in pair if tensor is not None]


@torch.inference_mode()
def calibrate(network: nn.Module, batches: Iterable[Batch], ranks: Ranks = ONE) -> None:
    """Measure the BN statistics of a plain network with all weights frozen (US-Nets, section 3.3).

    The statistics are reset, then become the exact cumulative average over batches of equal weight.
    Everything but BN stays in eval mode: dropout and stochastic depth are off. The processes of a job average over the
    batches of all of them: what one process would measure, to rounding.
    """
    norms = _norms(network)
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's cumulative moving average
        norm.train()
    count = 0
    for inputs, _ in batches:
        with advice_on_few_values():
            forward(network, inputs)
        count += 1
    if ranks.size > 1:
        total = sum(ranks.gather(count, "batches of a calibration"))
        averages = running_averages(network)
        for average in averages:
            average.mul_(count / total)
        ranks.sum(averages)
        for norm in norms:
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.fill_(total)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


@torch.inference_mode()
def evaluate(network: nn.Module, batches: Iterable[Batch], task: Task, ranks: Ranks = ONE) -> Score:
    """Return the mean loss and the score of a network in eval mode; both are summed up in double precision.

    The processes of a job each pass every n-th batch; all return the score over all batches.
    """
    network.eval()
    sums, counts = list[Tensor](), list[int]()
    for inputs, targets in batches:
        sums.append(task.sums(task.measured(network, inputs, targets), targets))
        counts.append(images_in(inputs))
    # Added up in the order of batches: the result does not depend on how many processes there are.
    parts = ranks.gather(([one.tolist() for one in sums], counts), "sums over scored images")
    rows = [row for turn in zip_longest(*(rows for rows, _ in parts)) for row in turn if row is not None]
    count = sum(sum(counts) for _, counts in parts)
    return task.scored(task.together(rows), count)
