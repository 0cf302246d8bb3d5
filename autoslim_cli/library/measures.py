"""Measure a caller's network on his batches: BN statistics, loss and score."""

from itertools import islice

import torch
from torch import Tensor, nn

from autoslim_cli.data.batch import forward, shapes
from autoslim_cli.errors import UsageError, expected
from autoslim_cli.library.loader import AnyBatches, Loader, opened, ready
from autoslim_cli.library.networks import drawing_apart
from autoslim_cli.network.modes import modes_kept
from autoslim_cli.network.trace import expected_network
from autoslim_cli.recipe.schema import TrainSettings
from autoslim_cli.training import measure
from autoslim_cli.training.score import Score
from autoslim_cli.training.task import Task
from autoslim_cli.training.tasks import classification


def calibrate(network: nn.Module, batches: AnyBatches) -> None:
    """Measure the BN statistics of a network with all weights frozen (US-Nets, section 3.3).

    The statistics are reset, then become the exact cumulative average over batches of equal weight, which are put on
    the network's device. Everything but BN is in eval mode meanwhile, without dropout and stochastic depth; afterwards
    all modes are as they were. Raises UsageError if there are no batches, or they are no pairs of inputs and targets.
    """
    expected_network("network", network)
    device = _device_of(network)
    with drawing_apart(), modes_kept(network):
        moved = (ready(one, device, "batches") for one in batches)
        first = list(islice(moved, 1))
        if not first:
            raise UsageError("batches: there are none, and BN statistics are those of some")
        measure.calibrate(network, (one for part in (first, moved) for one in part))


def evaluate(network: nn.Module, batches: AnyBatches, task: Task | None = None) -> Score:
    """Return the mean loss and the score of a network in eval mode: `score.loss`, `score.value`, `score.text`.

    Without a `task` it is classification. The network's modes are as before afterwards. Raises UsageError for batches
    or outputs that do not fit.
    """
    expected_network("network", network)
    with drawing_apart(), modes_kept(network):
        loader = opened(batches, _device_of(network), what="batches")
        task = task_for(outputs_of(network, loader), task)
        return measure.evaluate(network, loader.some(len(loader)), task)


def task_for(outputs: object, task: Task | None, settings: TrainSettings | None = None) -> Task:
    """Return the task, by default classification. Raises UsageError if outputs are no logits, and no task is named."""
    smoothing = settings.label_smoothing if settings else 0.0
    if task is not None:
        expected("task", task, Task, "a Task")
        if smoothing:
            raise UsageError("label_smoothing: is the task's own where one is passed; leave it out")
        return task
    if not isinstance(outputs, Tensor) or outputs.dim() != 2:
        raise UsageError(
            f"the network gives {shapes(outputs)}, which are no logits (images, classes): pass a task, as "
            "autoslim_cli.training.tasks has them, or a Task of your own"
        )
    return classification(outputs.shape[1], smoothing)


@torch.inference_mode()
def outputs_of(network: nn.Module, loader: Loader) -> object:
    """Return what a network gives in eval mode for the loader's first batch."""
    with modes_kept(network):
        return forward(network.eval(), loader.first[0])


def _device_of(network: nn.Module) -> torch.device:
    """Return where a network is."""
    return next(network.parameters(), torch.empty(0)).device
