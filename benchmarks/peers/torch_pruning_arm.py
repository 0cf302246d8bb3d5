"""Prune the trained base network with Torch-Pruning to each budget; write channels and weights.

Global importance by groups, iterated in small steps until our own count of FLOPs meets the budget. Runs in any
environment that has torch-pruning 1.6.1, torchvision, safetensors and autoslim.
"""

from copy import deepcopy
from importlib.metadata import version
from typing import Any

import torch
import torch.nn.functional as F
import torch_pruning as tp
from networks import Clock, channels_of, counted, flops, hand_back, images, open_base, options, say
from torch import Tensor, nn

IMPORTANCES = {
    "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
    "taylor": tp.importance.GroupTaylorImportance,
    "bn": tp.importance.BNScaleImportance,
}
IMAGES = 256
"""How many images give the gradients of each step, for Taylor importance."""

NEAR = 1.5
"""A step begins near a budget if it has no more than so many times its FLOPs: no step saves a third."""


def main() -> None:
    """Prune."""
    given = options(
        __doc__,
        ("--importance", {"choices": list(IMPORTANCES), "default": "l2"}),
        ("--steps", {"type": int, "default": 400, "help": "iterative steps to a pruning ratio of 0.95"}),
        ("--most", {"type": float, "default": 0.9, "help": "largest share of a layer's channels that may go"}),
    )
    torch.manual_seed(given.seed)
    network, units, model, image = open_base(given)
    batch = images(given.train, given, IMAGES) if given.importance == "taylor" else None
    clock, found, budgets = Clock(), [], list(given.flops)
    with counted() as work:
        pruner = tp.pruner.BasePruner(
            network,
            image,
            importance=IMPORTANCES[given.importance](),
            global_pruning=True,
            pruning_ratio=0.95,
            iterative_steps=given.steps,
            round_to=given.divisor,
            max_pruning_ratio=given.most,
            ignored_layers=[network.get_submodule(n) for unit in units if unit["pinned"] for n in unit["layers"]],
        )
        gradients = 0
        for _ in range(given.steps):
            if batch is not None:
                before = work.multiply_adds
                add_gradients(network, *batch)
                gradients += 3 * (work.multiply_adds - before)
            near = flops(network, image) <= NEAR * budgets[0]
            for group in pruner.step(interactive=True):  # near a budget it is looked at after every group
                group.prune()
                while near and budgets and flops(network, image) <= budgets[0]:
                    pruned = deepcopy(network)
                    pruned.zero_grad(set_to_none=True)
                    found.append(hand_back(pruned, units, model, given, budgets.pop(0)))
            if not budgets:
                break
    missed = {"missed": budgets, "smallest": channels_of(network, units)} if budgets else {}
    say(
        found, seconds=clock.seconds, evaluations=0, multiply_adds=gradients, version=version("torch-pruning"), **missed
    )


def add_gradients(network: nn.Module, batch: Tensor, labels: Tensor) -> Any:
    """Leave the gradients of the loss of some images in the network."""
    network.zero_grad()
    F.cross_entropy(network(batch), labels).backward()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
