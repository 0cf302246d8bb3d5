"""Prune the trained base network with NVIDIA modelopt's FastNAS to each budget; write channels and weights.

Its divisors are ours instead of 32; its FLOPs are two for a multiply-add. One threshold on the sensitivity of all units
decides, which leaves room in a budget: what the next lower threshold would grow is then grown unit by unit, the
most sensitive first, as long as the budget holds. Runs in an environment that has nvidia-modelopt 0.47 with what it
imports, torchprofile 0.0.4, torchvision, safetensors and autoslim.
"""

from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import modelopt.torch.nas as mtn
import torch
from modelopt.torch.prune.fastnas import BinarySearcher, FastNASConfig
from modelopt.torch.prune.pruning import PruneModeRegistry
from networks import Clock, counted, flops, hand_back, images, open_base, options, say
from torch import Tensor, nn

BATCH = 1000
QUEUE = 50
"""Batches that modelopt keeps to measure BN statistics of a candidate: with fewer it warns, and measures none."""


def main() -> None:
    """Search, fill and export."""
    given = options(
        __doc__,
        ("--calibrate", {"type": int, "default": 4000, "help": "training images that measure BN for each candidate"}),
        ("--scored", {"type": int, "default": None, "help": "held images that score each candidate; all by default"}),
    )
    torch.manual_seed(given.seed)
    network, units, model, image = open_base(given)
    known, (held, labels) = images(given.train, given, given.calibrate)[0], images(given.held, given, given.scored)
    evaluations, found = 0, []

    def score(candidate: nn.Module) -> float:
        nonlocal evaluations
        evaluations += 1
        return top1(candidate, held, labels)

    with TemporaryDirectory() as place:
        clock = Clock()
        with counted() as work:
            for budget in given.flops:
                space = mtn.convert(deepcopy(network), [("fastnas", rules(given.divisor))], registry=PruneModeRegistry)
                settings = {
                    "data_loader": [(batch,) for batch in known.tensor_split(QUEUE)],
                    "collect_func": lambda batch: batch[0],
                    "max_iter_data_loader": QUEUE,
                    "score_func": score,
                    "checkpoint": str(Path(place) / "sensitivity.pth"),  # one map of sensitivities for all budgets
                }
                searcher = BinarySearcher()
                searcher.search(space, {"flops": 2.0 * budget}, image, settings)
                threshold = flops(space, image)
                fill(space, image, budget, searcher.sensitivity_map)
                row = hand_back(mtn.export(space, calib=False), units, model, given, budget)
                found.append({**row, "fill_before": threshold / budget})
    say(
        found,
        seconds=clock.seconds,
        evaluations=evaluations,
        multiply_adds=work.multiply_adds,
        scored_images=len(held),
        version=version("nvidia-modelopt"),
    )


def rules(divisor: int) -> dict[str, Any]:
    """Return FastNAS's own rules with another divisor."""
    config: dict[str, Any] = FastNASConfig().model_dump()
    for by_layer in config.values():
        for rule in by_layer.values() if isinstance(by_layer, dict) else ():
            for name in ("channel_divisor", "feature_divisor"):
                if isinstance(rule, dict) and name in rule:
                    rule[name] = divisor
    return config


@torch.no_grad()
def top1(network: nn.Module, batch: Tensor, labels: Tensor) -> float:
    """Return the share of images that a network names rightly; being told to be in eval mode calibrates its BN."""
    network.eval()
    right = [
        (network(some).argmax(1) == wanted).sum()
        for some, wanted in zip(batch.split(BATCH), labels.split(BATCH), strict=True)  # type: ignore[no-untyped-call]
    ]
    return float(sum(right)) / len(labels)


def fill(space: nn.Module, image: Tensor, budget: int, sensitivity: dict[str, dict[int, float]]) -> None:
    """Grow units to their next choice, the most sensitive first, while the budget holds."""
    grew = True
    while grew:
        grew = False
        chosen = {name: count for name, count in mtn.get_subnet_config(space).items() if name in sensitivity}
        for name in sorted(chosen, key=lambda unit: -sensitivity[unit][chosen[unit]]):
            larger = [count for count in sorted(sensitivity[name]) if count > chosen[name]]
            if not larger:
                continue
            mtn.select(space, {name: larger[0]}, strict=False)
            if flops(space, image) <= budget:
                grew = True
                break
            mtn.select(space, {name: chosen[name]}, strict=False)


if __name__ == "__main__":
    main()
