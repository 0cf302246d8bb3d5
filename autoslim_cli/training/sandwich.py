"""Train all sub-networks of a supernet at once: the sandwich rule with inplace distillation."""

import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor

from autoslim_cli.cost.costs import CostOf
from autoslim_cli.data.batch import Tree, forward
from autoslim_cli.network.table import Channels
from autoslim_cli.recipe.schema import SupernetSettings
from autoslim_cli.seeds import python_random
from autoslim_cli.slimming.sampling import near_budget
from autoslim_cli.slimming.space import Space
from autoslim_cli.slimming.supernet import Supernet
from autoslim_cli.training.job import Losses, Step
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
    run: Callable[[Tree, Key], Any],
    inputs: Tree,
    targets: Tree,
    first: Key,
    others: Sequence[Key],
    *,
    task: Task,
    distill: bool,
    over: Pass = WHOLE,
) -> list[Tensor]:
    """Add the gradients of the first and the other sub-networks; return their losses, each ().

    `run` gives the outputs of a sub-network on inputs, as images (batch, channels, height, width). Inplace distillation
    (US-Nets, section 3.2): the first, the largest, learns from the targets, and the others from it alone. Where a task
    has no distillation, all learn from the targets.
    """

    def at(key: Key) -> Callable[[Tree], Any]:
        return lambda given: run(given, key)

    with warnings.catch_warnings():
        # Gradients are views of the full-size ones: strided, as they are meant to be.
        warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout contract")
        # 1. The first sub-network learns from the targets.
        with over.forward():
            outputs = task.run(at(first), inputs, targets)
            loss = task.learned(outputs, targets)
            taught = distill and task.teaches
            learn, target = (task.distilled, task.target(outputs)) if taught else (task.learned, targets)
        losses = [over.backward(loss, last=not others)]
        # 2. The others learn from it; their gradients add up in place.
        for number, key in enumerate(others, 1):
            with over.forward():
                loss = learn(task.run(at(key), inputs, targets), target)
            losses.append(over.backward(loss, last=number == len(others)))
    return losses


def supernet_step(
    supernet: Supernet, space: Space, settings: SupernetSettings, flops: CostOf, task: Task, seed: int, rank: int = 0
) -> Step:
    """Return what one step of a supernet's training does: all switches, or the sandwich rule (US-Nets, section 3.1).

    With `draw_per_process` random sub-networks depend on the process's rank; the first draws what one alone would.
    """
    own = (rank,) if settings.draw_per_process and rank else ()

    def switches(inputs: Tree, targets: Tree, over: Pass) -> Losses:
        first, *others = names = list(supernet.switches)
        run, distill = run_switches(supernet), settings.distill
        losses = sandwich_step(run, inputs, targets, first, others, task=task, distill=distill, over=over)
        return dict(zip(names, losses, strict=True))

    def sandwich(inputs: Tree, targets: Tree, over: Pass) -> Losses:
        random = python_random(seed, "subnetworks", over.number, *own)  # the same for all of a process's images
        first, *others = draw_subnetworks(space, settings, flops, random)
        run, distill = run_channels(supernet), settings.distill and settings.sandwich
        losses = sandwich_step(run, inputs, targets, first, others, task=task, distill=distill, over=over)
        return dict(zip(subnetwork_names(settings), losses, strict=True))

    return switches if supernet.switches else sandwich


def run_channels(supernet: Supernet) -> Callable[[Tree, Channels], Any]:
    """Return what gives the outputs of a supernet at any channels."""

    def run(inputs: Tree, channels: Channels) -> Any:
        supernet.activate(channels)
        return forward(supernet, inputs)

    return run


def run_switches(network: Supernet) -> Callable[[Tree, str], Any]:
    """Return what gives the outputs of a slimmable network at its switches."""

    def run(inputs: Tree, switch: str) -> Any:
        network.switch_to(switch)
        return forward(network, inputs)

    return run
