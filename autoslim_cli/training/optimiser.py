"""Build the optimizer and the learning-rate schedule that a recipe asks for."""

import math
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from autoslim_cli.errors import UsageError
from autoslim_cli.recipe.schema import TrainSettings

_CONVOLUTIONS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


def optimizer_of(network: nn.Module, settings: TrainSettings, *, fused: bool | None = None) -> torch.optim.Optimizer:
    """Return the optimizer with the authors' weight-decay groups: decay on dense convolution and linear weights only.

    Frozen weights are left out. `fused` updates all tensors in a few kernels, and is the default on a GPU.
    Raises UsageError if all are frozen.
    """
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    seen = set[int]()  # modules may share one
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                (decayed if name == "weight" and _is_dense(module) else spared).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise UsageError("nothing to train: all weights of the network are frozen (requires_grad is false)")
    fused = next(network.parameters()).is_cuda if fused is None else fused
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, fused=fused or None)
    nesterov = settings.nesterov and settings.momentum > 0
    sgd = torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=nesterov, fused=fused or None)
    remember_nothing(sgd)
    return sgd


def remember_nothing(optimizer: torch.optim.Optimizer) -> None:
    """Give a fused SGD momentum of zeros where it has none, from which its first step is the same.

    It would take memory as it lies there else, which stays where the gradients of fp16 overflow at the first step; and
    it fails where a weight has no gradient at the first step, and one later.
    """
    for group in optimizer.param_groups if isinstance(optimizer, torch.optim.SGD) else ():
        for parameter in group["params"] if group["fused"] and group["momentum"] > 0 else ():
            if optimizer.state[parameter].get("momentum_buffer") is None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _is_dense(module: nn.Module) -> bool:
    """Tell whether a module is a linear layer, or a convolution that is not depthwise."""
    if isinstance(module, _CONVOLUTIONS):
        return module.groups == 1 or module.groups != module.in_channels
    return isinstance(module, nn.Linear)


def schedule(optimizer: torch.optim.Optimizer, settings: TrainSettings, steps: int) -> LambdaLR:
    """Return the learning rate per step: a linear warm-up, then the recipe's decay to the end of `steps`.

    `one-cycle` is PyTorch's OneCycleLR with its default factors; it leaves momentum as it is.
    """
    if settings.schedule == "one-cycle":
        return LambdaLR(optimizer, lambda step: _one_cycle(step, settings.warmup * steps - 1, steps - 1))
    warm = round(settings.warmup * steps)
    decay = DECAYS[settings.schedule]

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        return decay(settings, step, warm, max(steps, warm + 1))

    return LambdaLR(optimizer, factor)


def _one_cycle(step: int, peak: float, end: int) -> float:
    """Return the factor that rises to 1 at `peak`, and falls to 1 / 250,000 at `end`, each by half a cosine."""
    low, lowest = 1 / 25, 1 / 25e4
    if step < peak:
        return 1 + (low - 1) * (1 + math.cos(math.pi * step / peak)) / 2
    return lowest + (1 - lowest) * (1 + math.cos(math.pi * min(1.0, (step - peak) / max(end - peak, 1e-9)))) / 2


def _linear(_settings: TrainSettings, step: int, start: int, end: int) -> float:
    return 1 - (step - start) / (end - start)


def _cosine(_settings: TrainSettings, step: int, start: int, end: int) -> float:
    return (1 + math.cos(math.pi * (step - start) / (end - start))) / 2


def _step(settings: TrainSettings, step: int, _start: int, end: int) -> float:
    return 0.1 ** sum(round(fraction * end) <= step for fraction in settings.milestones)


DECAYS = {"linear": _linear, "cosine": _cosine, "step": _step}
"""The factor of the learning rate at a step from `start`, where the warm-up ends, to `end`."""
