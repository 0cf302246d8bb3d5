"""Train all sub-networks of a supernet at once: the sandwich rule with inplace distillation."""

import random
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from autoslim_cli.files.recipe import SupernetSettings
from autoslim_cli.network.slimmable import SlimmableNetwork
from autoslim_cli.network.space import Space
from autoslim_cli.network.table import Channels


def draw_subnetworks(space: Space, settings: SupernetSettings, rng: random.Random) -> list[dict[str, int]]:
    """Return the sub-networks of one step after the largest: random ones, then the smallest (US-Nets, section 3.1)."""
    drawn = []
    for _ in range(settings.samples - 2):
        if settings.sampling == "uniform":
            drawn.append(space.uniform(rng.uniform(settings.min_width, settings.width)))
        else:
            drawn.append(space.random(rng))
    return [*drawn, space.smallest]


def sandwich_step(
    supernet: SlimmableNetwork,
    images: Tensor,
    labels: Tensor,
    others: list[dict[str, int]],
    *,
    distill: bool,
    label_smoothing: float,
) -> Tensor:
    """Leave the summed gradients of the largest and the other sub-networks; return the largest one's loss.

    Inplace distillation (US-Nets, section 3.2): the largest learns from the labels, its detached softmax teaches the
    others by soft cross-entropy alone.
    """
    with warnings.catch_warnings():
        # Gradients are views of the full-size ones: strided, as they are meant to be.
        warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")
        # 1. The largest sub-network learns from the labels.
        logits = _run(supernet, images, supernet.full)
        loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        target = logits.detach().softmax(1) if distill else labels
        # 2. The others learn from it; their gradients add up in place.
        for channels in others:
            other = _run(supernet, images, channels)
            smoothing = 0.0 if distill else label_smoothing
            F.cross_entropy(other, target, label_smoothing=smoothing).backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def _run(supernet: SlimmableNetwork, images: Tensor, channels: Channels) -> Tensor:
    """Return the logits (batch, classes) of one sub-network in single precision."""
    supernet.activate(channels)
    logits: Tensor = supernet(images)
    return logits.float() if logits.dtype != torch.float32 else logits
