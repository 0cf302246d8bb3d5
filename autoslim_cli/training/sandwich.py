"""Train all sub-networks of a supernet at once: the sandwich rule with inplace distillation."""

import random
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor

from autoslim_cli.network.table import Channels
from autoslim_cli.recipe.schema import SupernetSettings
from autoslim_cli.slimming.sampling import near_budget
from autoslim_cli.slimming.space import Space
from autoslim_cli.slimming.supernet import Supernet
from autoslim_cli.training.passes import Pass
from autoslim_cli.training.task import Task

Key = TypeVar("Key")
"""What names a sub-network: its channels, or a switch."""

WHOLE = Pass()


def draw_subnetworks(
    space: Space, settings: SupernetSettings, flops: Callable[[Channels], float], rng: random.Random
) -> list[dict[str, int]]:
    """Return the sub-networks of one step: the largest, random ones, and the smallest (US-Nets, section 3.1).

    Without the sandwich rule all are random.
    """
    draws: dict[str, Callable[[], dict[str, int]]] = {
        "per-unit": lambda: space.random(rng),
        "budget": lambda: near_budget(space, flops, rng),
        "uniform": lambda: space.uniform(rng.uniform(settings.min_width, settings.width)),
    }
    draw = draws[settings.sampling]
    drawn = [draw() for _ in range(settings.samples - 2 if settings.sandwich else settings.samples)]
    return [space.largest, *drawn, space.smallest] if settings.sandwich else drawn


def subnetwork_names(settings: SupernetSettings) -> list[str]:
    """Return what the sub-networks of a step are called, in the order in which they are drawn."""
    drawn = [f"random {n + 1}" for n in range(settings.samples - 2 if settings.sandwich else settings.samples)]
    return ["largest", *drawn, "smallest"] if settings.sandwich else drawn


def sandwich_step(
    run: Callable[[Tensor, Key], Tensor],
    images: Tensor,
    labels: Tensor,
    first: Key,
    others: Sequence[Key],
    *,
    task: Task,
    distill: bool,
    over: Pass = WHOLE,
) -> list[Tensor]:
    """Add the gradients of the first and the other sub-networks; return their losses, each ().

    `run` gives the outputs of a sub-network on images (batch, channels, height, width). Inplace distillation (US-Nets,
    section 3.2): the first, the largest, learns from the labels, and the others from it alone.
    """
    with warnings.catch_warnings():
        # Gradients are views of the full-size ones: strided, as they are meant to be.
        warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")
        # 1. The first sub-network learns from the labels.
        with over.forward():
            outputs = run(images, first)
            task.check(outputs)
            loss = task.loss(outputs, labels)
            learn, target = (task.distillation, task.target(outputs)) if distill else (task.loss, labels)
        losses = [over.backward(loss)]
        # 2. The others learn from it; their gradients add up in place.
        for key in others:
            with over.forward():
                loss = learn(run(images, key), target)
            losses.append(over.backward(loss))
    return losses


def run_channels(supernet: Supernet) -> Callable[[Tensor, Channels], Tensor]:
    """Return what gives the outputs of a supernet at any channels."""

    def run(images: Tensor, channels: Channels) -> Tensor:
        supernet.activate(channels)
        outputs: Tensor = supernet(images)
        return outputs

    return run


def run_switches(network: Supernet) -> Callable[[Tensor, str], Tensor]:
    """Return what gives the outputs of a slimmable network at its switches."""

    def run(images: Tensor, switch: str) -> Tensor:
        network.switch_to(switch)
        outputs: Tensor = network(images)
        return outputs

    return run
