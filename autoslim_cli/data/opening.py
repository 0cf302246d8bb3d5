"""Open a recipe's images, wherever they are."""

import contextlib
import math
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoslim_cli.data.checks import (
    check_channels,
    check_classes,
    check_normalisation,
    check_number,
    check_task,
    unheard,
)
from autoslim_cli.data.folder import ImageFiles, Part, list_images, list_masked, list_several, list_unlabelled
from autoslim_cli.data.hugging_face import HubImages, list_hub
from autoslim_cli.data.own import open_own
from autoslim_cli.data.sets import CLASSIFICATION
from autoslim_cli.data.shards import ImageShards, list_shards
from autoslim_cli.data.sources import ArraySource, CachedSource, FileSource, Masks, Source
from autoslim_cli.errors import AutoslimError, UsageError, install
from autoslim_cli.recipe.schema import DataSettings, ModelSettings, TaskSettings
from autoslim_cli.seeds import generator

DIGITS_FILE = Path(__file__).parent / "digits.npz"
_TORCHVISION = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "fashion-mnist": "FashionMNIST", "svhn": "SVHN"}


def open_source(
    part: Part,
    data: DataSettings,
    model: ModelSettings,
    seed: int,
    directory: Path,
    device: torch.device,
    task: TaskSettings = CLASSIFICATION,
    warn: Callable[[str], None] = unheard,
) -> Source:
    """Open one part of a data set: lists its files or reads its arrays, and decodes nothing.

    `warn` is told of what may be meant otherwise: files that are left out, classes that the data does not have.

    Raises UsageError naming the recipe key for missing data or images that do not suit the model.
    """
    limit = data.limit if part == "train" else None
    if data.is_own:
        some = partial(_some, limit=limit, seed=seed)
        own = open_own(part, data, model.shapes, some, directory, of_boxes=task.of_boxes)
        check_normalisation(own, data)
        return own
    check_channels(data, model.input[0])
    check_task(data, task)
    channels, height, width = model.input
    shape = (channels, height * task.enlarges, width * task.enlarges)
    if data.is_encoded:
        files = _listed(part, data, directory)
        if isinstance(files, ImageFiles | ImageShards) and files.left_out:
            warn(f"data.path: {files.left_out}")
        check_number(files.labels, files.class_names, part, model, task, warn)
        files = files.select(_some(len(files), limit, seed))
        masks = None
        if isinstance(files, ImageFiles) and files.masks:
            masks = Masks(files, model.classes or 0, task.ignored)
            if why := masks.doubtful():
                warn(f"data.path: {why}")
        source = FileSource(files, shape, data.workers, masks=masks, at_own_scale=task.enlarges > 1)
        check_classes(source.labels, model, task)
        fits = len(source) * math.prod(shape) <= data.memory * 2**30
        return CachedSource(source, device) if fits else source
    images, labels, names = _digits(part) if data.name == "digits" else _torchvision(part, data, directory)
    check_number(labels, names, part, model, task, warn)
    chosen = _some(len(labels), limit, seed)
    check_classes(labels[chosen], model, task)
    rows, columns = images.shape[-2:]
    if task.enlarges > 1 and (rows < shape[1] or columns < shape[2]):
        raise UsageError(
            f"model.input: enlarged {task.enlarges} times it is {shape[1]}x{shape[2]}, and the images of {data.name} "
            f"are {rows}x{columns}, too small: write {rows // task.enlarges}x{columns // task.enlarges} at most"
        )
    at_own_scale = task.enlarges > 1
    return ArraySource(images[chosen], labels[chosen], shape, device, names, at_own_scale=at_own_scale)


def _listed(part: Part, data: DataSettings, directory: Path) -> ImageFiles | ImageShards | HubImages:
    """List the images of one part that are decoded when they are asked for."""
    if data.name == "hugging-face":
        return list_hub(data.path, data.args, part, directory)
    return _LISTED[data.name](data_path(data, directory), part)


_LISTED: dict[str, Callable[[Path, Part], ImageFiles | ImageShards]] = {
    "image-folder": list_images,
    "image-shards": list_shards,
    "images": list_unlabelled,
    "image-masks": list_masked,
    "image-labels": list_several,
}


def data_path(data: DataSettings, directory: Path) -> Path:
    """Return where the data lies: `data.path` relative to the recipe, `~` and variables expanded."""
    return directory / Path(os.path.expandvars(data.path or "../../data")).expanduser()


def _some(total: int, limit: int | None, seed: int) -> Tensor:
    """Return which of so many images are used: all, or `limit` drawn by seed, in ascending order."""
    if not limit or limit >= total:
        return torch.arange(total)
    return torch.randperm(total, generator=generator(seed, "limit"))[:limit].sort().values


def _digits(part: Part) -> tuple[Tensor, Tensor, list[str]]:
    """Return the embedded handwritten digits: (images, 1, 8, 8), their labels, and what these are called.

    The last 360, of other writers, are the test set.
    """
    with np.load(DIGITS_FILE, allow_pickle=False) as arrays:
        images, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"]).long()
    chosen = slice(None, -360) if part == "train" else slice(-360, None)
    return images[chosen].unsqueeze(1), labels[chosen], [str(digit) for digit in range(10)]


def _torchvision(part: Part, data: DataSettings, directory: Path) -> tuple[Tensor, Tensor, list[str]]:
    """Return one of torchvision's data sets, downloaded by its own code where missing: images, labels, class names."""
    import torchvision

    root = data_path(data, directory)
    factory = getattr(torchvision.datasets, _TORCHVISION[data.name])
    options: dict[str, Any] = {"split": part} if data.name == "svhn" else {"train": part == "train"}
    try:
        with contextlib.redirect_stdout(sys.stderr):
            dataset = factory(str(root), download=data.download, **options)
    except ImportError as error:
        raise UsageError(f"data.name: {data.name} needs another package ({error}); {install('svhn')}") from None
    except (RuntimeError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise AutoslimError(
            f"data.name: {data.name} is not in {root} and could not be downloaded ({reason}); put its files there, "
            "or set data.name=image-folder and data.path to a directory with train/ and test/"
        ) from None
    images = torch.as_tensor(dataset.data)
    if images.dim() == 3:
        images = images.unsqueeze(1)
    elif images.shape[-1] in (1, 3):
        images = images.permute(0, 3, 1, 2)
    labels = torch.as_tensor(getattr(dataset, "targets", getattr(dataset, "labels", None))).long()
    return images, labels, list(getattr(dataset, "classes", ()))
