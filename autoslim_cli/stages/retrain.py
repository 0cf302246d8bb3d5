"""Train a network at given channels, from scratch or fine-tuned, and measure it on the test set once, at the end."""

import copy
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoslim_cli.cost.configs import config_of
from autoslim_cli.cost.forward_memory import forward_memory, values_held
from autoslim_cli.data.batch import Tree, forward, mapped
from autoslim_cli.data.sets import Images
from autoslim_cli.errors import UsageError
from autoslim_cli.files import checkpoint
from autoslim_cli.files.channel_config import chosen_by
from autoslim_cli.files.names import model_file, model_stem, state_file
from autoslim_cli.recipe.schema import BASE_FILE, RetrainSettings
from autoslim_cli.stages import start
from autoslim_cli.stages.project import Project, learned_from, origin
from autoslim_cli.training.checkpointing import blocks_computed_anew, with_memory
from autoslim_cli.training.job import Glance, Job, Losses, Result, Step, Training
from autoslim_cli.training.measure import (
    calibrate,
    calibration_batches,
    evaluate,
    keeps_initial_statistics,
    running_averages,
)
from autoslim_cli.training.opening import task_of
from autoslim_cli.training.passes import Pass
from autoslim_cli.training.score import Score, measured
from autoslim_cli.training.task import Task
from autoslim_cli.training.trained import trained

BASE = "base"
"""The name of the network that the recipe's section `base` trains."""


def retrain(
    project: Project,
    name: str,
    channels: dict[str, int],
    *,
    config: Path | None = None,
    resume: bool = False,
    force: bool = False,
    replaces: bool = True,
) -> dict[str, Any]:
    """Train the network at `channels` and write `model-<name>.safetensors`; return its figures on the test set.

    `config` is the file that the channels come from, if they come from one. It starts from what `retrain.start` names,
    and learns from the labels and from `retrain.teacher`, if there is one.
    `resume` continues a stopped training, and keeps a model that is already there and current; `force` gives up a
    stopped training that is not continued, which is refused by UsageError else. `replaces`: a network that is there
    and not current is trained anew, and kept aside; else that is refused.
    Raises AutoslimError on a loss that is not finite, ArtifactError where a file is missing that it starts from.
    """
    recipe, path = project.recipe, project.directory / model_file(name)
    if path.name == BASE_FILE and recipe.base and recipe.retrain.section != recipe.base.section:
        raise UsageError(f"{path} is what the supernet starts from, and train-base makes it: give another --name")

    start.refuse_no_supernet(project)
    if recipe.retrain.distill:
        project.reporter.warn("retrain.distill is of --joint, where networks teach each other: this one is alone")

    def build() -> Training:
        return _training(project, name, channels, path, {"chosen_by": chosen_by(config)} if config else {})

    job = Job(
        settings=recipe.retrain,
        seed=recipe.seed,
        made_from=origin(
            project,
            *sections(project),
            *start.keys(project),
            parents=[*([config] if config else []), *start.parents(project)],
            also=["test images", *start.also(project)],
            named=start.contents(project),
        ),
        format=checkpoint.MODEL,
        channels={path: project.network.space.spelled_out(channels)},
        state=project.directory / state_file(model_stem(name)),
        replaces=replaces,
        forced=force,
        track=recipe.track,
        read_last=read_last(project),
    )
    (facts,) = trained(job, build, project.reporter, project.ranks, resume=resume).values()
    from_ = {"start": start.title(project), "epochs": recipe.retrain.epochs}
    return {"name": name, "path": str(path), **project.costs(channels), **facts["test"], **from_}


def refuse_retraining(project: Project) -> None:
    """Raise what would end a retraining before its first step, whatever the channels: before hours of other work.

    Errors are UsageError for settings that do not suit the task or the network, ArtifactError for missing files.
    """
    recipe = project.recipe
    start.refuse_missing(project)
    task = task_of(recipe, project.directory, recipe.retrain, project.task)
    _refuse_lessons(task, recipe.retrain, taught=recipe.retrain.teacher != "none")
    blocks_computed_anew(project.network.reading, recipe.retrain)


def sections(project: Project) -> tuple[str, ...]:
    """Return the recipe's sections that retraining depends on, whatever it starts from."""
    section = project.recipe.retrain.section
    return ("data", section, "calibrate") if _ends_in_calibration(project) else ("data", section)


def read_last(project: Project) -> tuple[str, ...]:
    """Return what a retraining reads of the recipe after its last step alone: how it ends in calibration.

    Where the holdout decides, every look at it ends a copy of the network; what is cut out of a supernet is calibrated
    before the first step.
    """
    if project.recipe.retrain.validates:
        return ()
    last = f"{project.recipe.retrain.section}.calibrate"
    return (last,) if "calibrate" in start.keys(project) else (last, "calibrate")


def end_training(project: Project, network: nn.Module) -> None:
    """Measure the BN statistics of a network that was trained, where its recipe asks for that or they need it."""
    if _ends_in_calibration(project):
        settings, ranks = project.recipe.calibrate, project.ranks
        calibrate(network, calibration_batches(project.images.training, settings.images, settings.batch, ranks), ranks)


def training_images(project: Project) -> Images:
    """Return what a network trains on: all training images, unless the holdout is spared."""
    return project.images.training if project.recipe.retrain.spares_holdout else project.images.all_training


def glance(project: Project, networks: Iterable[nn.Module], task: Task) -> Glance:
    """Score networks on the holdout as they would be if their training ended now."""
    ranks, batch = project.ranks, project.recipe.evaluate.batch

    def score(network: nn.Module) -> Score:
        batches = project.images.holdout.evaluation(batch, rank=ranks.rank, size=ranks.size)
        return evaluate(network, batches, task, ranks)

    return glance_as_ended(networks, task, partial(end_training, project), score)


def glance_as_ended(
    networks: Iterable[nn.Module],
    task: Task,
    end: Callable[[nn.Module], None],
    score: Callable[[nn.Module], Score],
) -> Glance:
    """Score copies of networks whose training is ended."""
    scores = list[Score]()
    for network in networks:
        ended = copy.deepcopy(network)
        end(ended)
        scores.append(score(ended))
    words = f"holdout {task.metric.title} " + "  ".join(score.text for score in scores)
    return Glance(words, sum(score.loss for score in scores) / len(scores))


def on_test_images(project: Project, network: nn.Module, task: Task) -> Score:
    """Score a network that was retrained on the test images. Raises AutoslimError if no working network scores so."""
    ranks = project.ranks
    batches = project.images.test.evaluation(project.recipe.evaluate.batch, rank=ranks.rank, size=ranks.size)
    return evaluate(network, batches, task, ranks).of_use("test images", project.recipe.retrain.section)


def looks(project: Project) -> dict[str, int]:
    """Return how many images forward passes beside a retraining's steps, or after them, take, by the recipe's keys."""
    recipe, images = project.recipe, project.images
    scored = max(len(images.test), len(images.holdout) if recipe.retrain.validates else 0)
    found = {"evaluate.batch": min(recipe.evaluate.batch, scored)}
    return {**calibration_look(project), **found} if _ends_in_calibration(project) else found


def calibration_look(project: Project) -> dict[str, int]:
    """Return how many images calibration takes at a time, by the recipe's key."""
    settings = project.recipe.calibrate
    return {"calibrate.batch": min(settings.batch, settings.images, len(project.images.training))}


def _ends_in_calibration(project: Project) -> bool:
    """Tell whether statistics are measured at the end of the recipe's retraining."""
    settings = project.recipe.retrain
    steps = training_images(project).steps(settings.batch)
    return ends_in_calibration(settings, project.network.reading.module, steps)


def ends_in_calibration(settings: RetrainSettings, network: nn.Module, steps: int) -> bool:
    """Tell whether statistics are measured at the end: if settings say so, or leave it to the network's momentum.

    `steps` are those of an epoch. Where the holdout decides, the first may end a training, or be what is kept.

    One of 0.0003, as MNASNet's, leaves a short training with statistics that are mostly initial ones. Averaged weights
    have statistics of their own.
    """
    if settings.calibrate != "auto":
        return settings.calibrate
    epochs = 1 if settings.validates else settings.epochs
    return settings.ema is not None or keeps_initial_statistics(network, epochs * steps)


def learning(network: nn.Module, task: Task, settings: RetrainSettings, taught_by: nn.Module | None) -> Step:
    """Return what one step of a plain network's training does: it learns from the targets and from a teacher."""
    weight, temperature = settings.teacher_weight, settings.temperature
    _refuse_lessons(task, settings, taught=taught_by is not None)

    def softened(outputs: object) -> object:
        return mapped(outputs, lambda one: one / temperature) if temperature != 1 else outputs

    def step(inputs: Tree, targets: Tree, over: Pass) -> Losses:
        with over.forward():
            # 1. What the targets say.
            outputs = task.run(partial(forward, network), inputs, targets)
            loss = task.learned(outputs, targets)
            # 2. What the teacher says, if there is one.
            if taught_by is not None:
                with torch.no_grad():
                    target = task.target(softened(forward(taught_by, inputs)))
                distilled = task.distilled(softened(outputs), target) * temperature**2
                loss = (1 - weight) * loss + weight * distilled
        return {"loss": over.backward(loss, last=True)}

    return step


def _refuse_lessons(task: Task, settings: RetrainSettings, *, taught: bool) -> None:
    """Raise UsageError for a temperature or a teacher that means nothing in a task."""
    if settings.temperature != 1 and not task.gives_logits:
        raise UsageError(
            f"{settings.section}.temperature: {settings.temperature:g} softens logits, and {task.name} has none; "
            "leave it at 1"
        )
    if taught and not task.teaches:
        raise UsageError(
            f"{settings.section}.teacher: in {task.name} networks learn from the targets alone; leave it at none"
        )


def _training(project: Project, name: str, channels: dict[str, int], path: Path, also: dict[str, str]) -> Training:
    """Build the network, and say how it is trained and measured; `also` goes among the facts of its file."""
    recipe, cost = project.recipe, project.costs(channels)
    network, taught_by = start.started(project, channels), start.teacher(project)
    config = config_of(project.network, project.costs, channels, built=network)
    images = training_images(project)
    project.images.check_test()  # before any work
    task = task_of(recipe, project.directory, recipe.retrain, project.task)
    flops, params = cost["flops"] / 1e6, cost["params"] / 1e6
    words = "" if recipe.retrain.start == "scratch" else f", from {start.title(project)}"
    words += "" if taught_by is None else f", taught by {recipe.retrain.teacher}"
    verb = "training" if recipe.retrain.section == BASE else "retraining"
    project.reporter.say(f"{verb} {name}: {flops:.2f}M FLOPs, {params:.3f}M parameters{words}")

    step = learning(network, task, recipe.retrain, taught_by)
    step, needs = with_memory(step, network, project.network.reading, recipe.retrain)
    lesson = values_held(taught_by, recipe.model.shapes) if taught_by else 0

    def results() -> dict[Path, Result]:
        end_training(project, network)
        score = on_test_images(project, network, task)
        facts = {"config": config.model_dump(mode="json", exclude_none=True), **measured("test", score), **also}
        facts |= learned_from(project)
        return {path: Result(network.state_dict(), facts)}

    return Training(
        network,
        images,
        step,
        lambda: network.zero_grad(set_to_none=True),
        results,
        statistics=running_averages(network),
        memory=lambda count: needs(channels, count, recipe.retrain, lesson),
        looks=looks(project),
        look_memory=forward_memory(network, project.network.reading),
        part=project.network.reading.part,
        after_epoch=(lambda: glance(project, [network], task)) if recipe.retrain.validates else None,
    )
