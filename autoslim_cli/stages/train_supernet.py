"""Train a supernet: every sub-network works once its BN statistics are calibrated (US-Nets; AutoSlim, section 3.1).

With switchable BN it is a slimmable network of fixed widths instead, and needs no calibration (Slimmable Networks).
"""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from autoslim_cli.errors import UsageError
from autoslim_cli.files import checkpoint
from autoslim_cli.files.provenance import current_facts, decisive, refuse_to_lose
from autoslim_cli.seeds import python_random
from autoslim_cli.slimming.supernet import Supernet
from autoslim_cli.stages.workshop import SUPERNET_FILE, Workshop
from autoslim_cli.training.loop import Training, fit
from autoslim_cli.training.measure import calibrate, evaluate
from autoslim_cli.training.sandwich import draw_subnetworks, run_channels, run_switches, sandwich_step
from autoslim_cli.training.score import Score
from autoslim_cli.training.task import classification

STATE_FILE = "supernet.resume.pt"
GLANCE_IMAGES = 1024
"""Training images that calibrate the three widths after each epoch: enough for a glance."""


def train_supernet(shop: Workshop, *, resume: bool = False) -> dict[str, Any]:
    """Train the recipe's supernet and write `supernet.safetensors`; return its holdout scores at three widths.

    With switchable BN the scores are those of every switch. `resume` continues a stopped training, and keeps a supernet
    that is already there and current. Raises AutoslimError on a loss that is not finite.
    """
    recipe, space, switches = shop.recipe, shop.space, shop.switches
    made_from = shop.made_from("data", "space", "supernet", "train")
    path, state = shop.path(SUPERNET_FILE), shop.path(STATE_FILE)
    if not resume:
        refuse_to_lose(state)
    elif facts := current_facts(path, checkpoint.SUPERNET, made_from, shop.full):
        shop.reporter.say(f"{path} is there and current")
        state.unlink(missing_ok=True)
        return {"supernet": str(path), "widths": facts["holdout"]}
    if not any(len(unit.counts) > 1 for unit in space.units.values()):
        raise UsageError(f"{recipe.model.name}: no unit can be slimmed; `autoslim units` says why")
    base = {"base": space.uniform(1.0)} if recipe.supernet.width >= 1 else {}
    widths = switches or {"largest": space.largest, **base, "smallest": space.smallest}
    for channels in widths.values():  # before any work: fvcore agrees on what will be counted
        shop.config(channels)
    images, supernet = shop.training_images, shop.fresh_supernet(trained=True)
    task = classification(recipe.model.classes, recipe.train.label_smoothing)
    scores: dict[str, Score] = {}

    def step(batch: Tensor, labels: Tensor, number: int) -> Tensor:
        if switches:
            first, *others = switches
            distill = recipe.supernet.distill
            return sandwich_step(run_switches(supernet), batch, labels, first, others, task=task, distill=distill)
        largest, *smaller = draw_subnetworks(space, recipe.supernet, python_random(recipe.seed, "subnetworks", number))
        distill = recipe.supernet.distill and recipe.supernet.sandwich
        return sandwich_step(run_channels(supernet), batch, labels, largest, smaller, task=task, distill=distill)

    def after_epoch() -> str:
        for name, channels in widths.items():
            scores[name] = score_subnetwork(shop, supernet, channels, name if switches else None)
        return "holdout top-1 " + "  ".join(f"{name} {score.top1:.1%}" for name, score in scores.items())

    costs = "  ".join(f"{name} {shop.flops(channels) / 1e6:.2f}M" for name, channels in widths.items())
    kind = "slimmable network" if switches else "supernet"
    shop.reporter.say(f"{kind} of {recipe.model.name} on {shop.device}: FLOPs {costs}; {len(images)} images")
    training = Training(
        network=supernet.kept,
        images=images,
        settings=recipe.train,
        seed=recipe.seed,
        state=state,
        decisive=decisive(made_from),
        step=step,
        zero_gradients=supernet.zero_gradients,
        after_epoch=after_epoch,
        key="train",
    )
    fit(training, shop.reporter, resume=resume)
    if not scores:  # resumed after the last step
        after_epoch()
    holdout = {name: {**shop.cost(widths[name]), **asdict(score)} for name, score in scores.items()}
    facts = {"model": shop.architecture, "channels": supernet.full, "holdout": holdout}
    facts |= {"switches": switches} if switches else {}
    checkpoint.save(path, checkpoint.SUPERNET, supernet.kept.state_dict(), {**facts, "made_from": made_from})
    state.unlink(missing_ok=True)
    return {"supernet": str(path), "widths": holdout}


@torch.no_grad()
def score_subnetwork(shop: Workshop, supernet: Supernet, channels: dict[str, int], switch: str | None = None) -> Score:
    """Return the holdout score of one sub-network: of a switch with its own BN, else calibrated on a few images."""
    network = supernet.extract(channels, switch)
    if switch is None:
        calibrate(network, calibration_batches(shop, GLANCE_IMAGES))
    return evaluate(network, shop.holdout.evaluation(512), classification(shop.recipe.model.classes))


def calibration_batches(shop: Workshop, images: int) -> Any:
    """Yield batches of equal size of training images with evaluation transforms."""
    some = shop.training_images.first(images)
    batch = min(shop.recipe.calibrate.batch, len(some))
    return some.first(len(some) // batch * batch).evaluation(batch)
