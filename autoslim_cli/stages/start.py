"""Say what a retraining starts from, and who teaches it."""

import os
from pathlib import Path

import torch
from torch import nn

from autoslim_cli.errors import ArtifactError, UsageError
from autoslim_cli.files import checkpoint
from autoslim_cli.network.rebuild import on_device
from autoslim_cli.network.table import Channels
from autoslim_cli.slimming.supernet import Supernet
from autoslim_cli.stages.evaluate import trained_model
from autoslim_cli.stages.project import SUPERNET_FILE, Project, load_supernet
from autoslim_cli.training.measure import calibrate, calibration_batches


def started(project: Project, channels: Channels) -> nn.Module:
    """Return the network at `channels` with the weights that `retrain.start` names, on the device.

    Raises UsageError if the supernet does not hold these channels, ArtifactError if a file is missing, damaged or of
    another network.
    """
    start, network = project.recipe.retrain.start, project.network
    if start == "scratch":
        return network.fresh(channels)
    if start == "weights":
        if project.recipe.model.weights is None:
            raise UsageError("retrain.start: weights are those of model.weights, which the recipe does not name")
        return network.trained(channels, project.directory, project.reporter.say, sort=project.recipe.supernet.sort)
    if start == "supernet":
        refuse_missing_channels(project, channels)
        return _extracted(project, load_supernet(project, same_holdout=False), channels)
    built = network.fresh(channels)
    path = _file(project, "start", start)
    checkpoint.fill(built, _with_counts(checkpoint.load_weights(path, "retrain.start"), built), path)
    return built


def teacher(project: Project) -> nn.Module | None:
    """Return the network that `retrain.teacher` names, in eval mode and frozen, None for none.

    Raises ArtifactError if a file is missing, damaged, or of a network for other images or classes, UsageError if it
    would call code that is not trusted.
    """
    name, model = project.recipe.retrain.teacher, project.recipe.model
    if name == "none":
        return None
    if name == "supernet":
        supernet = load_supernet(project, same_holdout=False)
        network = _extracted(project, supernet, supernet.full)
    else:
        path = _file(project, "teacher", name)
        network, config = trained_model(path, project.trust)
        if (config.model.input, config.model.classes) != (model.input, model.classes):
            raise ArtifactError(
                f"retrain.teacher: {path} takes {list(config.model.input)} and gives {config.model.classes} classes, "
                f"and the recipe's model {list(model.input)} and {model.classes}"
            )
    return on_device(network, project.device, model.trace).eval().requires_grad_(False)


def parents(project: Project) -> list[Path]:
    """Return the files that a retraining is made from beside its config."""
    settings, found = project.recipe.retrain, []
    for key, name, words in (
        ("start", settings.start, ("scratch", "weights")),
        ("teacher", settings.teacher, ("none",)),
    ):
        if name == "supernet":
            found.append(project.directory / SUPERNET_FILE)
        elif name not in words:
            found.append(_file(project, key, name))
    return list(dict.fromkeys(found))


def label(project: Project) -> str:
    """Return what sets the file of a network apart that does not start from scratch: `-from-supernet`."""
    start = project.recipe.retrain.start
    return "" if start == "scratch" else f"-from-{Path(start).stem.removeprefix('model-')}"


def refuse_missing_channels(project: Project, channels: Channels) -> None:
    """Raise UsageError where a network is to start from the supernet, which lacks some of its channels."""
    if project.recipe.retrain.start != "supernet":
        return
    for name, count in channels.items():
        if count > (there := project.network.full[name]):
            raise UsageError(
                f"retrain.start: the supernet has {there} channels of {name}, not {count}; start from scratch, or "
                "train a wider supernet"
            )


def _extracted(project: Project, supernet: Supernet, channels: Channels) -> nn.Module:
    """Return a sub-network with its own BN statistics."""
    plain, settings = supernet.extract(channels), project.recipe.calibrate
    ranks = project.ranks
    calibrate(plain, calibration_batches(project.images.training, settings.images, settings.batch, ranks), ranks)
    return plain


def _file(project: Project, key: str, name: str) -> Path:
    """Return the path of a file that a setting names. Raises ArtifactError if there is none."""
    path = project.directory / Path(os.path.expandvars(name)).expanduser()
    if not path.is_file():
        known = {"start": "scratch, supernet, weights", "teacher": "none, supernet"}[key]
        raise ArtifactError(f"retrain.{key}: no file {path}; write {known}, or a file relative to the recipe")
    return path


def _with_counts(tensors: dict[str, torch.Tensor], network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors with BN's counts of batches, which some files leave out."""
    counts = {name: t for name, t in network.state_dict().items() if name.endswith("num_batches_tracked")}
    return {**counts, **tensors}
