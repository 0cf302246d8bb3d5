"""Build the optimizer and the learning-rate schedule that a recipe asks for."""

import warnings

import torch
from torch import nn
from torch.optim import lr_scheduler

from autoslim_cli.recipe.schema import TrainSettings

_CONVOLUTIONS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


def sgd(network: nn.Module, settings: TrainSettings) -> torch.optim.SGD:
    """Return SGD with the authors' weight-decay groups: decay on dense convolution and linear weights only."""
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            (decayed if name == "weight" and _is_dense(module) else spared).append(parameter)
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov and settings.momentum > 0,
    )


def _is_dense(module: nn.Module) -> bool:
    """Tell whether a module is a linear layer, or a convolution that is not depthwise."""
    if isinstance(module, _CONVOLUTIONS):
        return module.groups == 1 or module.groups != module.in_channels
    return isinstance(module, nn.Linear)


def schedule(optimizer: torch.optim.Optimizer, settings: TrainSettings, steps: int) -> lr_scheduler.LRScheduler:
    """Return the learning rate per iteration: a linear warm-up, then the recipe's decay to the end of `steps`."""
    warm = round(settings.warmup * steps)
    rest = max(1, steps - warm)
    main: lr_scheduler.LRScheduler
    if settings.schedule == "linear":
        main = lr_scheduler.LinearLR(optimizer, 1.0, 0.0, rest)
    elif settings.schedule == "cosine":
        main = lr_scheduler.CosineAnnealingLR(optimizer, rest)
    else:
        milestones = [round(fraction * steps) - warm for fraction in settings.milestones]
        main = lr_scheduler.MultiStepLR(optimizer, milestones)
    if warm == 0:
        return main
    rising = lr_scheduler.LinearLR(optimizer, 1.0 / (warm + 1), 1.0, warm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR steps its parts in a way that it warns of itself
        return lr_scheduler.SequentialLR(optimizer, [rising, main], [warm])
