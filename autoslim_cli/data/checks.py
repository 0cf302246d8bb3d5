"""Refuse settings of data that do not suit each other, the model or the task."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from autoslim_cli.data.batch import tensors
from autoslim_cli.data.folder import Part
from autoslim_cli.data.own import OwnSource
from autoslim_cli.errors import UsageError
from autoslim_cli.recipe.schema import DataSettings, ModelSettings, TaskSettings


def check_channels(data: DataSettings, channels: int) -> None:
    """Raise UsageError for settings that images of so many channels do not suit."""
    if channels not in (1, 3):
        raise UsageError(f"model.input: images have 1 or 3 channels, not {channels}")
    for key, values in (("mean", data.mean), ("std", data.std)):
        if values is not None and len(values) != channels:
            raise UsageError(f"data.{key}: {len(values)} values for images of {channels} channels")
    if data.augment.lighting and channels != 3:
        raise UsageError("data.augment.lighting: for images in colour (model.input of 3 channels); leave it out")


_LEARNS_FROM = {
    "image-folder": "classification",
    "images": "super-resolution",
    "image-masks": "segmentation",
    "image-labels": "multi-label",
}
"""What else than classes is learned from, by the name of the data that has it."""


def check_task(data: DataSettings, task: TaskSettings) -> None:
    """Raise UsageError for a task whose targets the data does not have, and for variations that spoil them."""
    given = _LEARNS_FROM.get(data.name, "classification")
    enlarged = task.name == "super-resolution" and given == "classification"  # any image is a target
    if task.name != given and not enlarged and not (task.is_own and data.name != "images"):
        listed = next((f"{name}, or " for name, other in _LEARNS_FROM.items() if other == task.name), "")
        raise UsageError(
            f"data.name: {data.name} is for {given}, and the task is {task.name}: {listed}a data set of your own, as "
            "./data.py:factory"
        )
    of_labels = given in ("classification", "multi-label") and not enlarged
    for key, wanted, harms in (
        ("mixup", "classification", data.augment.mixes and task.name != "classification"),
        ("policy", "classification or multi-label", data.augment.policy != "none" and given == "segmentation"),
        ("erase", "classification or multi-label", data.augment.erase and not of_labels),
    ):
        if harms:
            raise UsageError(f"data.augment.{key}: for {wanted}, not for {task.name}; leave it out")


def check_classes(labels: Tensor, model: ModelSettings, task: TaskSettings) -> None:
    """Raise UsageError for data of other labels than the model has outputs for, and for images of no class."""
    if labels.dim() == 2:
        if labels.shape[1] != model.classes:
            raise UsageError(f"model.classes: {model.classes}, but the data has {labels.shape[1]} labels")
    elif task.name == "classification" and (without := int((labels < 0).sum())):  # as of tests whose answers are kept
        raise UsageError(
            f"data: {without} of {len(labels)} images have no class (their label is below zero); name a split whose "
            "images have one, as data.args.test=validation"
        )


def check_number(
    labels: Tensor,
    names: Sequence[str],
    part: Part,
    model: ModelSettings,
    task: TaskSettings,
    warn: Callable[[str], None],
) -> None:
    """Raise UsageError if a part's images, all that there are, have more classes than the model, or than have names.

    `warn` is told if a classifier has more than its training images: it may be meant, as of weights that are kept.
    """
    if model.classes is None or task.enlarges > 1 or labels.dim() == 2:
        return
    classes = int(labels.max()) + 1
    if classes > model.classes:
        raise UsageError(f"model.classes: {model.classes}, but the data has {classes} classes")
    if 0 < len(names) < classes:
        raise UsageError(
            f"data: the {part} images have {classes} classes, but {len(names)} names: {names[-1]} is the last"
        )
    if 0 < classes < model.classes and part == "train" and task.name == "classification":
        warn(
            f"model.classes: {model.classes}, but the training images have {classes}: its classifier, and FLOPs and "
            f"weights with it, is larger than they need; model.classes={classes} suits them, and starts from "
            "model.weights of more classes, too, whose classifier alone is left out"
        )


def unheard(_: str) -> None:
    """Hear a warning that nobody is told."""


def check_normalisation(source: OwnSource, data: DataSettings) -> None:
    """Raise UsageError for a mean or deviation that the user's uint8 images do not suit."""
    (inputs, _) = next(source.fitted([torch.tensor([0])]))
    channels = {tensor.shape[1] for tensor in tensors(inputs) if tensor.dtype == torch.uint8}
    for key, values in (("mean", data.mean), ("std", data.std)):
        if values is not None and len(values) > 1 and channels - {len(values)}:
            raise UsageError(f"data.{key}: {len(values)} values for images of {min(channels)} channels")
