"""Train a supernet: every sub-network works once its BN statistics are calibrated (US-Nets; AutoSlim, section 3.1).

With switchable BN it is a slimmable network of fixed widths instead, and needs no calibration (Slimmable Networks).
"""

from pathlib import Path
from typing import Any

from autoslim_cli.cost.configs import config_of
from autoslim_cli.cost.costs import CostOf
from autoslim_cli.cost.step_memory import StepMemory
from autoslim_cli.data.batch import Tree
from autoslim_cli.data.sets import Images
from autoslim_cli.errors import UsageError
from autoslim_cli.files import checkpoint
from autoslim_cli.recipe.schema import Recipe, SupernetSettings
from autoslim_cli.seeds import python_random
from autoslim_cli.slimming.base_network import BaseNetwork
from autoslim_cli.slimming.supernet import Supernet
from autoslim_cli.stages.project import SUPERNET_FILE, Project, origin
from autoslim_cli.training.job import Glance, Job, Losses, Result, Step, Training
from autoslim_cli.training.measure import calibrate, calibration_batches, evaluate, running_averages
from autoslim_cli.training.passes import Pass
from autoslim_cli.training.sandwich import (
    draw_subnetworks,
    run_channels,
    run_switches,
    sandwich_step,
    subnetwork_names,
)
from autoslim_cli.training.score import Score
from autoslim_cli.training.task import Task
from autoslim_cli.training.tasks import task_of
from autoslim_cli.training.trained import trained

STATE_FILE = "supernet.resume.pt"
GLANCE_IMAGES = 1024
"""Training images that calibrate each width that is scored: enough for a glance."""


def train_supernet(project: Project, *, resume: bool = False, force: bool = False) -> dict[str, Any]:
    """Train the recipe's supernet and write `supernet.safetensors`; return its holdout scores at three widths.

    With switchable BN the scores are those of every switch. `resume` continues a stopped training, and keeps a supernet
    that is already there and current; another one is refused by UsageError, unless `force`, which keeps it aside.
    Raises AutoslimError on a loss that is not finite.
    """
    recipe, network = project.recipe, project.network
    if not any(len(unit.counts) > 1 for unit in network.space.units.values()):
        raise UsageError(f"{recipe.model.name}: no unit can be slimmed; `autoslim units` says why")
    path = project.directory / SUPERNET_FILE
    job = Job(
        section="train",
        settings=recipe.train,
        seed=recipe.seed,
        made_from=origin(project, "data", "space", "supernet", "train", also=["weights"]),
        format=checkpoint.SUPERNET,
        channels={path: network.full},
        state=project.directory / STATE_FILE,
        replaces=force,
        track=recipe.track,
    )

    def build() -> Training:
        return _training(project, _widths(network, recipe.supernet))

    (facts,) = trained(job, build, project.reporter, project.ranks, resume=resume).values()
    return {"supernet": str(path), "widths": facts["holdout"]}


def _training(project: Project, widths: dict[str, dict[str, int]]) -> Training:
    """Build the supernet, and say how it is trained and scored at some widths."""
    recipe, network, costs, say = project.recipe, project.network, project.costs, project.reporter.say
    for channels in widths.values():  # before any work: fvcore agrees on what will be counted
        config_of(network, costs, channels)
    images, holdout = project.images.training, project.images.holdout
    if recipe.model.weights is None:
        supernet = network.fresh_supernet()
    else:
        supernet = network.trained_supernet(project.directory, say, sort=recipe.supernet.sort)
    text = "  ".join(f"{name} {costs['flops'](channels) / 1e6:.2f}M" for name, channels in widths.items())
    kind = "slimmable network" if network.switches else "supernet"
    say(f"{kind} of {recipe.model.name} on {project.device}: FLOPs {text}; {len(images)} images")
    glance, calibration = holdout.take(recipe.evaluate.images).in_memory(), images.take(GLANCE_IMAGES).in_memory()

    def after_epoch() -> Glance:
        scores = _scores(project, supernet, widths, glance, calibration)
        words = f"holdout {project.task.metric.title} "
        words += "  ".join(f"{name} {score.text}" for name, score in scores.items())
        return Glance(words, sum(score.loss for score in scores.values()) / len(scores))

    def results() -> dict[Path, Result]:
        scores = _scores(project, supernet, widths, holdout, calibration)
        figures = {name: {**costs(widths[name]), **score.figures} for name, score in scores.items()}
        facts = {"model": network.architecture, "channels": network.full, "holdout": figures}
        facts["metric"] = project.task.metric.model_dump(mode="json")
        facts |= {"switches": network.switches} if network.switches else {}
        return {project.directory / SUPERNET_FILE: Result(supernet.kept.state_dict(), facts)}

    task = task_of(recipe, project.directory, recipe.train)
    step = _step(recipe, network, costs["flops"], supernet, task)
    statistics = running_averages(supernet.private)
    needs, largest = StepMemory.of(network.reading), network.full

    def memory(count: int) -> int:
        return needs(largest, count, recipe.train)

    return Training(supernet.kept, images, step, supernet.zero_gradients, results, after_epoch, statistics, memory)


def _step(recipe: Recipe, network: BaseNetwork, flops: CostOf, supernet: Supernet, task: Task) -> Step:
    """Return what one step does: all switches, or the sandwich rule (US-Nets, section 3.1)."""
    settings = recipe.supernet

    def switches(inputs: Tree, targets: Tree, over: Pass) -> Losses:
        first, *others = names = list(network.switches)
        run, distill = run_switches(supernet), settings.distill
        losses = sandwich_step(run, inputs, targets, first, others, task=task, distill=distill, over=over)
        return dict(zip(names, losses, strict=True))

    def sandwich(inputs: Tree, targets: Tree, over: Pass) -> Losses:
        random = python_random(recipe.seed, "subnetworks", over.number)  # the same for all images of a step
        first, *others = draw_subnetworks(network.space, settings, flops, random)
        run, distill = run_channels(supernet), settings.distill and settings.sandwich
        losses = sandwich_step(run, inputs, targets, first, others, task=task, distill=distill, over=over)
        return dict(zip(subnetwork_names(settings), losses, strict=True))

    return switches if network.switches else sandwich


def _widths(network: BaseNetwork, settings: SupernetSettings) -> dict[str, dict[str, int]]:
    """Return the channels that are scored: of all switches, or of the largest, the base and the smallest."""
    base = {"base": network.base} if settings.width >= 1 else {}
    return network.switches or {"largest": network.space.largest, **base, "smallest": network.space.smallest}


def _scores(
    project: Project,
    supernet: Supernet,
    widths: dict[str, dict[str, int]],
    holdout: Images,
    calibration: Images,
) -> dict[str, Score]:
    """Score sub-networks on the holdout: switches with their own BN, others calibrated on a few training images."""
    recipe, ranks, scores = project.recipe, project.ranks, {}
    for name, channels in widths.items():
        network = supernet.extract(channels, name if supernet.switches else None)
        if not supernet.switches:
            calibrate(network, calibration_batches(calibration, GLANCE_IMAGES, recipe.calibrate.batch, ranks), ranks)
        batches = holdout.evaluation(recipe.evaluate.batch, rank=ranks.rank, size=ranks.size)
        scores[name] = evaluate(network, batches, project.task, ranks)
    return scores
