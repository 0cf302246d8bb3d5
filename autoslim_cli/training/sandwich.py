"""Train all sub-networks of a supernet at once: the sandwich rule with inplace distillation."""

import random
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from autoslim_cli.network.table import Channels
from autoslim_cli.recipe.schema import SupernetSettings
from autoslim_cli.slimming.space import Space
from autoslim_cli.slimming.supernet import Supernet

Key = TypeVar("Key")
"""What names a sub-network: its channels, or a switch."""


def draw_subnetworks(space: Space, settings: SupernetSettings, rng: random.Random) -> list[dict[str, int]]:
    """Return the sub-networks of one step: the largest, random ones, and the smallest (US-Nets, section 3.1).

    Without the sandwich rule all are random.
    """
    drawn = []
    for _ in range(settings.samples - 2 if settings.sandwich else settings.samples):
        if settings.sampling == "uniform":
            drawn.append(space.uniform(rng.uniform(settings.min_width, settings.width)))
        else:
            drawn.append(space.random(rng))
    return [space.largest, *drawn, space.smallest] if settings.sandwich else drawn


def sandwich_step(
    run: Callable[[Tensor, Key], Tensor],
    images: Tensor,
    labels: Tensor,
    first: Key,
    others: Sequence[Key],
    *,
    distill: bool,
    label_smoothing: float,
) -> Tensor:
    """Leave the summed gradients of the first and the other sub-networks; return the first one's loss.

    `run` gives the logits (batch, classes) of a sub-network. Inplace distillation (US-Nets, section 3.2): the first,
    the largest, learns from the labels, its detached softmax teaches the others by soft cross-entropy alone.
    """
    with warnings.catch_warnings():
        # Gradients are views of the full-size ones: strided, as they are meant to be.
        warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")
        # 1. The first sub-network learns from the labels.
        logits = run(images, first)
        loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        target = logits.detach().softmax(1) if distill else labels
        # 2. The others learn from it; their gradients add up in place.
        for key in others:
            other = run(images, key)
            smoothing = 0.0 if distill else label_smoothing
            F.cross_entropy(other, target, label_smoothing=smoothing).backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def run_channels(supernet: Supernet) -> Callable[[Tensor, Channels], Tensor]:
    """Return what gives the logits of a supernet at any channels, in single precision."""
    return lambda images, channels: _logits(supernet, supernet.activate, images, channels)


def run_switches(network: Supernet) -> Callable[[Tensor, str], Tensor]:
    """Return what gives the logits of a slimmable network at its switches, in single precision."""
    return lambda images, switch: _logits(network, network.switch_to, images, switch)


def _logits(network: Supernet, turn: Callable[[Key], None], images: Tensor, key: Key) -> Tensor:
    turn(key)
    logits: Tensor = network(images)
    return logits.float() if logits.dtype != torch.float32 else logits
