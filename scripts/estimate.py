"""Estimate what each shipped recipe takes: multiply-adds, core hours and memory. Nothing is trained.

    python scripts/estimate.py [RECIPE ...] [--markdown]

- Work: a training step is three forward passes (one forward, two backward) of every sub-network of the sandwich; random
  ones count as the mean of 200. A base network counts where the recipe trains it first. Search and retraining are for
  half of the base network's FLOPs, the search as `autoslim search` forecasts it. Evaluation and decoding are not
  counted.
- One core: work divided by the rate of one core of this machine in training steps of the base network in fp32,
  measured in CPU time, so that other processes do not matter. At 1 T/s: the same work on a device that does
  10^12 multiply-adds a second of it. Too few where the training waits for images to be decoded.
- Memory: what autograd keeps of one step at the recipe's batch and precision, measured at a batch of two and scaled,
  with weights, gradients and momentum: of the supernet at its largest, and of the base network when it is retrained.
  The device's own overhead comes on top.
- Of a detector all of this is of the part that is slimmed, its backbone: heads and losses come on top.
"""

import argparse
import json
import random
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn

from autoslim_cli.cost.budget import parse_many
from autoslim_cli.cost.closed_form import flops, params
from autoslim_cli.data.batch import tensors
from autoslim_cli.models.zoo import build
from autoslim_cli.network.rebuild import fresh
from autoslim_cli.network.trace import read
from autoslim_cli.network.traced_part import given_to, part_of
from autoslim_cli.recipe import catalogue
from autoslim_cli.recipe.loading import load_recipe
from autoslim_cli.recipe.schema import Recipe, TrainSettings
from autoslim_cli.searching import STRATEGIES, Problem
from autoslim_cli.searching.forecast import foresee
from autoslim_cli.slimming.constraints import constrained, space_of
from autoslim_cli.slimming.space import Space
from autoslim_cli.training.sandwich import draw_subnetworks

BUDGET = "50%"
PASSES = 3
"""Forward passes that a training step costs: the backward pass takes two."""
TRAINING_IMAGES = {
    **{"digits": 1_437, "digits-super-resolution": 1_437},
    **{"cifar10": 50_000, "cifar10-small": 50_000, "cifar10-smoke": 8_000},
    **{"cifar10-scenes": 8_000, "photographs-x2": 733, "penn-fudan-detection": 136},
    **{"voc-segmentation": 1_464, "coco-ssdlite": 117_266},
    **dict.fromkeys((name for name in catalogue.shipped() if name.startswith("imagenet-")), 1_281_167),
}
"""Training images by recipe; those that compose their scenes say how many in data.args."""
DRAWS = 200
SECONDS = 3.0
"""How long a rate is measured."""


def work_of_step(space: Space, recipe: Recipe, count: Any) -> float:
    """Return the multiply-adds of one image in a step of the supernet's training."""
    rng = random.Random(0)
    steps = (draw_subnetworks(space, recipe.supernet, count, rng) for _ in range(DRAWS))
    return PASSES * statistics.mean(float(sum(map(count, channels))) for channels in steps)


def step(network: nn.Module, images: Tensor, precision: str) -> None:
    """Run a network forward and backward, from the mean square of what it gives."""
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        outputs = tensors(network(images))
    torch.stack([output.float().square().mean() for output in outputs]).sum().backward()  # type: ignore[no-untyped-call]


def training_memory(network: nn.Module, shape: tuple[int, ...], settings: TrainSettings) -> int:
    """Return the bytes of a training step at the settings' batch."""
    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    images = torch.rand(2, *shape)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step(network.train(), images, settings.precision)
    numbers = sum(parameter.numel() for parameter in network.parameters())
    return sum(kept.values()) * settings.batch // 2 + 3 * 4 * numbers


def rate(network: nn.Module, shape: tuple[int, ...], count: int) -> float:
    """Return the multiply-adds per second of CPU time of training steps on one core, in fp32."""
    batch = max(2, min(64, round(2e9 / count)))
    images = torch.rand(batch, *shape).contiguous(memory_format=torch.channels_last)
    network = network.train().to(memory_format=torch.channels_last)
    step(network, images, "fp32")
    started, times = time.process_time(), list[float]()
    while len(times) < 3 or time.process_time() - started < SECONDS:
        before = time.process_time()
        step(network, images, "fp32")
        times.append(time.process_time() - before)
    return PASSES * count * batch / statistics.median(times)


def estimate(name: str) -> dict[str, Any]:
    """Return a recipe's work, core hours and memory."""
    directory = catalogue.shipped()[name]
    recipe = load_recipe(directory)
    model = recipe.model
    reading = constrained(read(build(model, directory), *model.shapes, part=model.trace), recipe.space)
    table = reading.table
    space = space_of(table, recipe.supernet, recipe.space)
    base = flops(table, table.base)
    images = int(recipe.data.args.get("count") or TRAINING_IMAGES[name])
    # 1. The work of each stage.
    first = PASSES * base * recipe.base.epochs * (images - recipe.data.holdout) if recipe.base else 0.0
    train = work_of_step(space, recipe, lambda channels: flops(table, channels))
    train *= recipe.train.epochs * (images - recipe.data.holdout)
    cost = {"flops": base, "params": params(table, table.base)}
    problem = Problem(
        space,
        lambda channels: {"flops": flops(table, channels), "params": params(table, channels)},
        tuple(parse_many({"flops": BUDGET}, cost)),
        recipe.search,
        recipe.seed,
    )
    scored = recipe.search.images or recipe.data.holdout
    search = foresee(problem, STRATEGIES[recipe.search.strategy]).passes * flops(table, space.largest) * scored
    retrain = PASSES * base / 2 * recipe.retrain.epochs * images
    # 2. How fast this machine does it, and in how much memory.
    networks = (fresh(reading.module, table, channels) for channels in (space.largest, table.base))
    largest, plain = (part_of(network, model.trace) for network in networks)
    shape: tuple[int, ...] = model.input
    if model.trace:
        shape = tuple(given_to(reading.module.eval(), model.trace, torch.zeros(2, *shape))[0].shape[1:])
    speed = rate(plain, shape, base)
    stages = {"base": first, "train": train, "search": search, "retrain": retrain}
    return {
        "recipe": name,
        "multiply_adds": stages,
        "rate": speed,
        "core_hours": sum(stages.values()) / speed / 3600,
        "memory": {
            "train": training_memory(largest, shape, recipe.train),
            "retrain": training_memory(plain, shape, recipe.retrain),
        },
    }


def amount(value: float) -> str:
    """Write a count of multiply-adds for people."""
    for unit, size in (("E", 1e18), ("P", 1e15), ("T", 1e12)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e9:.3g} G"


def hours(value: float) -> str:
    """Write hours for people."""
    if value < 1:
        return f"{max(1, round(value * 60))} min"
    return f"{value:.2g} h" if value < 48 else f"{value / 24:,.0f} days"


def gigabytes(value: float) -> str:
    """Write bytes for people."""
    return f"{value / 1e9:.2g} GB" if value > 1e8 else "< 0.1 GB"


def main() -> None:
    """Estimate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=sorted(catalogue.shipped()))
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.markdown:
        heads = [
            "recipe",
            "base",
            "supernet",
            "search",
            "retraining",
            "one core",
            "at 1 T/s",
            "memory: supernet",
            "retraining",
        ]
        print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for name in options.recipes:
        row = estimate(name)
        if not options.markdown:
            print(json.dumps(row), flush=True)
            continue
        work = [amount(value) if value else "" for value in row["multiply_adds"].values()]
        whole = sum(row["multiply_adds"].values())
        print(
            f"| `{name}` | {' | '.join(work)} | {hours(row['core_hours'])} | {hours(whole / 3.6e15)} | "
            f"{' | '.join(gigabytes(value) for value in row['memory'].values())} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
