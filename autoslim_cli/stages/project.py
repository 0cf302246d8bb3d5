"""Open a recipe: the few things that its stages share."""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from autoslim_cli.cost.activation_memory import ActivationMemory
from autoslim_cli.cost.costs import Costs
from autoslim_cli.data.image_sets import ImageSets
from autoslim_cli.errors import ArtifactError
from autoslim_cli.files.checkpoint import SUPERNET, read_facts
from autoslim_cli.files.facts import LearnedFrom
from autoslim_cli.files.names import SUPERNET_FILE
from autoslim_cli.files.provenance import decisive, difference, made_from
from autoslim_cli.latency.pieces import pieces
from autoslim_cli.latency.predictor import predictor
from autoslim_cli.latency.summary import verdict
from autoslim_cli.latency.table import read_table
from autoslim_cli.latency.table_choice import commands_on, measured_otherwise, table_for_search
from autoslim_cli.launch import launched
from autoslim_cli.machine import choose_device, keep_freed_memory
from autoslim_cli.models.trust import Trust
from autoslim_cli.progress import Reporter
from autoslim_cli.recipe.commands import Commands
from autoslim_cli.recipe.schema import BASE_FILE, DOWNLOADED, Recipe, RetrainSettings
from autoslim_cli.slimming.base_network import BaseNetwork
from autoslim_cli.slimming.supernet import Supernet
from autoslim_cli.slimming.trained_weights import weights_digest
from autoslim_cli.training.distributed import Ranks, join_ranks
from autoslim_cli.training.opening import task_digest, task_of
from autoslim_cli.training.task import Task


@dataclass(frozen=True)
class Project:
    """A recipe, the directory that its files lie in, and what was opened for them. It does nothing by itself."""

    recipe: Recipe
    directory: Path
    device: torch.device
    network: BaseNetwork
    images: ImageSets
    costs: Costs
    task: Task
    task_code: Mapping[str, str]
    """The digest of the task's code, where that is the user's own, as it was loaded."""
    reporter: Reporter
    ranks: Ranks
    """The processes that share the work."""
    trust: Trust
    """Whose code files may call."""
    commands: Commands
    """What messages name that a person may do next."""
    latency_table: Path | None = None
    """What latency is predicted by, where it is among the costs."""


def open_project(
    recipe: Recipe, directory: Path, reporter: Reporter, *, trust: bool = False, overrides: Iterable[str] = ()
) -> Project:
    """Join the job if there is one, choose the device, and read the network; images are opened when first used.

    `overrides` are those that a person gave, which the recipe holds already.
    """
    keep_freed_memory()
    ranks = join_ranks(on_gpus=not recipe.device.startswith(("cpu", "mps")))
    ranks.agreed(shared_settings(recipe), "recipes")
    device = choose_device(recipe.device)
    ranks.agreed(device.type, "kinds of device")
    task, code = task_of(recipe, directory), task_digest(recipe.task, directory)
    network = BaseNetwork.of(recipe, directory, device)
    if not recipe.model.trace:  # a part's outputs are not the network's
        task.check_outputs(network.reading.outputs, recipe.model.input)
    images = ImageSets(recipe.data, recipe.model, recipe.task, recipe.seed, directory, device, reporter.warn)
    if ranks.size > 1 and recipe.data.download and recipe.data.name in DOWNLOADED:
        # One process downloads for all; then, where machines have disks of their own, one of each for its machine.
        for downloads in (ranks.first, launched().local_rank == 0):
            if downloads:
                _ = images.digest, images.test  # what opens them downloads them
            ranks.wait("a download")
    costs = Costs.closed_form(network.reading.table)
    trusted = Trust(recipe.model, directory, anything=trust)
    commands = Commands(directory, tuple(overrides))
    return Project(recipe, directory, device, network, images, costs, task, code, reporter, ranks, trusted, commands)


def shared_settings(recipe: Recipe) -> dict[str, Any]:
    """Return what of a recipe all processes of a job must share: not where data lie, nor on what each computes."""
    values = recipe.model_dump(mode="json", exclude={"about", "device", "track"})
    return Recipe.decisive(values)


def load_supernet(project: Project, path: Path | None = None, *, same_holdout: bool = True) -> Supernet:
    """Return the recipe's trained supernet. Raises ArtifactError if it is missing, or not of what the recipe says.

    `same_holdout` is not asked for where nothing is scored on the holdout.
    """
    path = path or project.directory / SUPERNET_FILE
    images = project.images
    return project.network.load_supernet(
        path, project.recipe, images.digest, project.commands, images_now(project), same_holdout=same_holdout
    )


def images_now(project: Project, part: str = "train") -> LearnedFrom:
    """Return what there is to learn from the training images, or the test images, by the recipe as it is."""
    images = project.images
    names = images.class_names if part == "train" else images.test_class_names
    normalised = dict(zip(("mean", "std"), map(list, images.normalised_by(part) or ()), strict=False))
    return LearnedFrom(class_names=names, **normalised)


def learned_from(project: Project) -> dict[str, Any]:
    """Return what a file says of the images that its network learned from: their classes, and what they are less."""
    return {"learned_from": images_now(project).model_dump(exclude_none=True)}


def say_how_it_was_trained(project: Project) -> None:
    """Tell in what the training of the supernet differs from what the recipe says now; it is taken as it is."""
    path, sections = project.directory / SUPERNET_FILE, ("data", "space", "supernet", "train")
    origin_then = decisive(read_facts(path, SUPERNET, "")["made_from"])
    now = Recipe.decisive(project.recipe.sections("task", *sections))  # which says how images are normalised
    before, after = ({name: recipe.get(name) for name in sections} for recipe in (origin_then["recipe"], now))
    before["model"] = {"weights": origin_then["recipe"].get("model", {}).get("weights")}
    after["model"] = {"weights": project.recipe.model.weights}
    with suppress(ArtifactError):  # what it started from need not be there any more
        before["weights"] = origin_then.get("contents", {}).get("weights")
        after["weights"] = _weights_digest(project) if project.recipe.model.weights else None
    if why := difference(before, after):
        project.reporter.say(f"{path} was trained with other settings, and is taken as it is: {why}")


def origin(
    project: Project,
    *sections: str,
    parents: Iterable[Path] = (),
    also: Collection[str] = (),
    named: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return what an artifact records of its origin: sections of the recipe, and what its names stand for now.

    `sections` may name a key alone, as `evaluate.images`. `also` names what counts beside the network and the training
    images: `weights` to start from, `test images`; `named` is what further names stand for.
    """
    contents = {"network": project.network.digest, "images": project.images.digest, **(named or {})}
    contents |= project.task_code
    if "test images" in also:
        contents["test images"] = project.images.test.source.digest
    if "weights" in also and project.recipe.model.weights:
        contents["weights"] = _weights_digest(project)
    return made_from(project.recipe, *sections, contents=contents, directory=project.directory, parents=parents)


def _weights_digest(project: Project) -> str:
    """Return what the weights to start from are; raise ArtifactError if they are missing, and say what makes them."""
    name, key = project.recipe.model.weights, weights_key(project)
    path = project.directory / str(name)
    if name == BASE_FILE and project.recipe.base and key == "model.weights" and not path.is_file():
        raise ArtifactError(f"{path} is missing; train the base network first: `{project.commands('train-base')}`")
    return weights_digest(project.recipe.model, project.directory, key)


def weights_key(project: Project) -> str:
    """Return the recipe's key that names the weights to start from, as messages name it."""
    section = project.recipe.retrain.section
    return "model.weights" if section == RetrainSettings.section else f"{section}.start"


def with_activation_memory(project: Project) -> Project:
    """Return the project with activation memory among its costs."""
    reading = project.network.reading
    memory = ActivationMemory.of(reading, pieces(reading))
    return replace(project, costs=project.costs.also("activation_memory", memory))


def with_latency(project: Project, named: Path | None) -> Project:
    """Return the project with latency among its costs, by a table that is named or this machine's own.

    Raises ArtifactError or UsageError if there is none that a search can take.
    """
    model, network, commands = project.recipe.model, project.network.digest, project.commands
    path = table_for_search(named, project.directory, model, network, project.device, commands)
    reading, space = project.network.reading, project.network.space
    table = read_table(path)
    again = commands_on(table.device, project.device, commands)
    latency = predictor(table, pieces(reading), *space.ends, str(path), again)
    judged = verdict(table.check)
    if judged.predicts in ("badly", "unchecked"):
        project.reporter.warn(f"{path} {judged.words}")
    if why := measured_otherwise(table.device, project.device, named=named is not None):
        project.reporter.warn(f"{path} was measured {why}: `{again('profile')}` measures as this machine is now")
    return replace(project, costs=project.costs.also("latency", latency), latency_table=path)
