"""Try channels by a short training: what a supernet believes of them, put to the test."""

import hashlib
import json
from dataclasses import replace

from autoslim_cli.cost.forward_memory import forward_memory, values_held
from autoslim_cli.files.provenance import decisive
from autoslim_cli.network.table import Channels
from autoslim_cli.stages import start
from autoslim_cli.stages.project import Project, origin
from autoslim_cli.stages.retrain import calibration_look, learning
from autoslim_cli.training.checkpointing import with_memory
from autoslim_cli.training.job import Job, Training
from autoslim_cli.training.loop import fit
from autoslim_cli.training.measure import calibrate, calibration_batches, evaluate, running_averages
from autoslim_cli.training.opening import task_of
from autoslim_cli.training.score import Score


def trial(project: Project, channels: Channels) -> Score:
    """Return the holdout's score of a network after `search.trial_epochs` of the training that `retrain` says.

    It trains on the training images alone, and starts as `retrain.start` says; where that is from scratch, an epoch
    would tell nothing, and it starts from the supernet. Raises AutoslimError on a loss that no working network has,
    UsageError for a step that does not fit into memory.
    """
    project, recipe = _starting(project), project.recipe
    network, task = start.started(project, channels), task_of(recipe, project.directory, recipe.retrain, project.task)
    settings = recipe.retrain.model_copy(
        update={"epochs": recipe.search.trial_epochs, "ema": None, "keep": "last", "patience": None}
    )
    taught_by = start.teacher(project)
    step = learning(network, task, settings, taught_by)
    step, needs = with_memory(step, network, project.network.reading, settings)
    lesson = values_held(taught_by, recipe.model.shapes) if taught_by else 0
    images, holdout = project.images.training, project.images.holdout
    training = Training(
        network,
        images,
        step,
        lambda: network.zero_grad(set_to_none=True),
        statistics=running_averages(network),
        memory=lambda count: needs(channels, count, settings, lesson),
        looks={**calibration_look(project), "evaluate.batch": min(recipe.evaluate.batch, len(holdout))},
        look_memory=forward_memory(network, project.network.reading),
        part=project.network.reading.part,
    )
    ranks = project.ranks
    fit(Job(settings, recipe.seed), training, project.reporter, ranks, resume=False)
    calibrate(network, calibration_batches(images, recipe.calibrate.images, recipe.calibrate.batch, ranks), ranks)
    batches = holdout.evaluation(recipe.evaluate.batch, rank=ranks.rank, size=ranks.size)
    return evaluate(network, batches, task, ranks).of_use("holdout", "retrain")


def conditions(project: Project) -> str:
    """Return a digest of what a trial's score depends on beside the channels."""
    project = _starting(project)
    sections = ("data", "retrain", "calibrate", *start.keys(project))
    named = start.contents(project)
    made = origin(project, *sections, parents=start.parents(project), also=start.also(project), named=named)
    text = json.dumps([decisive(made), project.recipe.search.trial_epochs], sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _starting(project: Project) -> Project:
    """Return the project whose networks start from weights that are there."""
    retrain = project.recipe.retrain
    if retrain.start != "scratch":
        return project
    warm = retrain.model_copy(update={"start": "supernet"})
    return replace(project, recipe=project.recipe.model_copy(update={"retrain": warm}))
