"""Open a recipe's images, and split off the holdout."""

import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoslim_cli.data.augment import erase, mix, vary, vary_masks
from autoslim_cli.data.batch import Batch, Tree, joined, mapped, tensors
from autoslim_cli.data.folder import ImageFiles, Part, list_images, list_masked, list_several, list_unlabelled
from autoslim_cli.data.hugging_face import HubImages, list_hub
from autoslim_cli.data.own import OwnSource, open_own
from autoslim_cli.data.shards import ImageShards, list_shards
from autoslim_cli.data.sources import ArraySource, CachedSource, FileSource, HeldSource, Masks, Source
from autoslim_cli.data.transforms import by_policy, moved, reduced
from autoslim_cli.errors import AutoslimError, UsageError
from autoslim_cli.recipe.schema import AugmentSettings, DataSettings, ModelSettings, TaskSettings
from autoslim_cli.seeds import generator, seed_from

CLASSIFICATION = TaskSettings()

DIGITS_FILE = Path(__file__).parent / "digits.npz"
_TORCHVISION = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "fashion-mnist": "FashionMNIST", "svhn": "SVHN"}


@dataclass(frozen=True)
class Images:
    """Some images of a source: the training part, the holdout, or the test set; batches come ready for a network."""

    source: Source
    indices: Tensor
    mean: Tensor
    std: Tensor
    augment: AugmentSettings
    device: torch.device
    classes: int | None
    enlarges: int = 1
    """How many times higher and wider a target is than the input: an image is the target of itself, reduced."""
    ignored: int | None = None
    """Of masks, the value of pixels that do not count."""

    def __len__(self) -> int:
        return len(self.indices)

    def select(self, indices: Tensor) -> "Images":
        """Return the images at these places of the source (int64: images)."""
        return replace(self, indices=indices)

    def take(self, count: int) -> "Images":
        """Return the first `count` images (the split has shuffled them)."""
        return self.select(self.indices[:count])

    def in_memory(self) -> "Images":
        """Return these images with their fitted pixels on the device, decoded here and now."""
        batches = self.source.fitted(torch.split(self.indices, 512))
        inputs, targets = (joined(parts) for parts in zip(*batches, strict=True))
        source: Source
        if isinstance(self.source, OwnSource | HeldSource):
            source = HeldSource(self._here(inputs), self._here(targets), self.source.digest)
        else:
            assert isinstance(inputs, Tensor)
            assert isinstance(targets, Tensor)
            _, *shape = inputs.shape
            source = ArraySource(inputs, targets.cpu(), (shape[0], shape[1], shape[2]), self.device)
        return replace(self, source=source, indices=torch.arange(len(source)))

    def steps(self, batch: int) -> int:
        """Return the full batches of one epoch; one if there are fewer images than that."""
        return max(1, len(self) // batch)

    def part(self, batch: int, rank: int, size: int) -> range:
        """Return the places of a batch that one of `size` processes takes."""
        batch = min(batch, len(self))
        return range(batch * rank // size, batch * (rank + 1) // size)

    def training(
        self, batch: int, seed: int, epoch: int, start: int = 0, *, rank: int = 0, size: int = 1
    ) -> Iterator[Batch]:
        """Yield the augmented full batches of one epoch from step `start`: float images and targets on the device.

        Order and augmentation depend on (seed, epoch, step) alone, an image's draws on its place in the batch as well.
        So `size` processes, each of which gets its part of every batch, see what one would.
        """
        order = self.indices[torch.randperm(len(self), generator=generator(seed, "order", epoch))]
        whole, part = min(batch, len(self)), self.part(batch, rank, size)
        # An image is mixed with the one before it in the whole batch: that one comes along.
        places = [*([(part.start - 1) % whole] if self.augment.mixes else []), *part]
        steps = range(start, self.steps(batch))
        batches = [order[[step * batch + place for place in places]] for step in steps]
        seeds = [seed_from(seed, "augment", epoch, step) for step in steps]
        by_source = self.augment.crops_files or isinstance(self.source, OwnSource)
        loaded = self.source.cropped(batches, seeds, self.augment, places) if by_source else self.source.fitted(batches)
        for one, batch_seed in zip(loaded, seeds, strict=True):
            own = isinstance(self.source, OwnSource)
            yield self._normalised(one) if own else self._varied(one, batch_seed, places)

    def _varied(self, batch: Batch, seed: int, places: Sequence[int]) -> Batch:
        """Return a batch that was loaded, or the part of it that is at some places, as networks train on it."""
        (images, targets), augment = batch, self.augment
        assert isinstance(images, Tensor)
        if augment.policy != "none" and not augment.crops_files:
            varied = [
                by_policy(image, augment.policy, seed_from(seed, n)) for n, image in zip(places, images, strict=True)
            ]
            images = torch.stack(varied)
        images = vary(moved(images, self.device), augment, seed, places)
        if self.ignored is not None:
            assert isinstance(targets, Tensor)
            targets = vary_masks(moved(targets, self.device), augment, seed, places, self.ignored)
        inputs, targets = self._normalised((images, targets))
        if augment.erase or augment.mixes:
            assert isinstance(inputs, Tensor)
            assert isinstance(targets, Tensor)
            inputs = erase(inputs, augment.erase, seed, places) if augment.erase else inputs
            if augment.mixes:
                inputs, targets = (both[1:] for both in mix(inputs, targets, augment, self.classes or 1, seed))
        return inputs, targets

    def evaluation(self, batch: int, *, rank: int = 0, size: int = 1) -> Iterator[Batch]:
        """Yield all images in order with evaluation transforms; the last batch may be smaller.

        Each of `size` processes gets every `size`-th batch.
        """
        yield from map(self._normalised, self.source.fitted(torch.split(self.indices, batch)[rank::size]))

    def _normalised(self, batch: Batch) -> Batch:
        """Return a batch on the device, its images as floats of the recipe's mean and deviation.

        Where images are enlarged, they are the targets, in [0, 1], and their inputs are made of them.
        """
        inputs, targets = (self._here(tree) for tree in batch)
        if self.enlarges > 1:
            assert isinstance(inputs, Tensor)
            targets = inputs.float().div_(255).contiguous(memory_format=torch.channels_last)
            inputs = reduced(inputs, self.enlarges)
        return mapped(inputs, self._floats), mapped(targets, as_index)

    def _here(self, tree: Tree) -> Tree:
        """Return a tree on the device."""
        return mapped(tree, lambda tensor: moved(tensor, self.device))

    def _floats(self, images: Tensor) -> Tensor:
        """Return uint8 images as floats of the recipe's mean and deviation; what is not uint8 is left as it is."""
        if images.dtype == torch.uint8:
            images = images.float().div_(255).sub_(self.mean).div_(self.std)
        return channels_last(images)


def channels_last(images: Tensor) -> Tensor:
    """Return images (images, channels, height, width) in the order in memory that networks are kept in."""
    return images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images


def as_index(target: Tensor) -> Tensor:
    """Return a target whose small integers are as large as an index is."""
    return target.long() if target.dtype == torch.uint8 else target


def split_holdout(
    source: Source,
    data: DataSettings,
    model: ModelSettings,
    seed: int,
    device: torch.device,
    task: TaskSettings = CLASSIFICATION,
) -> tuple[Images, Images]:
    """Return the training images and the holdout, split by seed.

    Raises UsageError naming the recipe key for a split that leaves nothing.
    """
    order = torch.randperm(len(source), generator=generator(seed, "holdout"))
    if data.holdout >= len(order):
        raise UsageError(f"data.holdout: {data.holdout} of {len(order)} training images leave none to train on")
    images = all_images(source, data, model, device, task)
    return images.select(order[data.holdout :]), images.select(order[: data.holdout])


def all_images(
    source: Source,
    data: DataSettings,
    model: ModelSettings,
    device: torch.device,
    task: TaskSettings = CLASSIFICATION,
) -> Images:
    """Return all images of a source: the test set, or the training set with the holdout, for the final training."""
    usual = (0.0, 1.0) if task.of_boxes else (0.5, 0.5)  # detectors normalise images themselves
    mean, std = (
        torch.tensor(values or (none,), device=device).view(-1, 1, 1)
        for values, none in zip((data.mean, data.std), usual, strict=True)
    )
    enlarges = 1 if data.is_own else task.enlarges
    ignored = task.ignored if data.name == "image-masks" else None
    every = torch.arange(len(source))
    return Images(source, every, mean, std, data.augment, device, model.classes, enlarges, ignored)


def open_source(
    part: Part,
    data: DataSettings,
    model: ModelSettings,
    seed: int,
    directory: Path,
    device: torch.device,
    task: TaskSettings = CLASSIFICATION,
) -> Source:
    """Open one part of a data set: lists its files or reads its arrays, and decodes nothing.

    Raises UsageError naming the recipe key for missing data or images that do not suit the model.
    """
    limit = data.limit if part == "train" else None
    if data.is_own:
        some = partial(_some, limit=limit, seed=seed)
        own = open_own(part, data, model.shapes, some, directory, of_boxes=task.of_boxes)
        _check_normalisation(own, data)
        return own
    _check_channels(data, model.input[0])
    _check_task(data, task)
    channels, height, width = model.input
    shape = (channels, height * task.enlarges, width * task.enlarges)
    if data.is_encoded:
        files = _listed(part, data, directory)
        files = files.select(_some(len(files), limit, seed))
        masks = None
        if isinstance(files, ImageFiles) and files.masks:
            masks = Masks(files, model.classes or 0, task.ignored)
        source = FileSource(files, shape, data.workers, masks=masks, at_own_scale=task.enlarges > 1)
        _check_classes(source.labels, model, task)
        fits = len(source) * math.prod(shape) <= data.memory * 2**30
        return CachedSource(source, device) if fits else source
    images, labels = _digits(part) if data.name == "digits" else _torchvision(part, data, directory)
    chosen = _some(len(labels), limit, seed)
    _check_classes(labels[chosen], model, task)
    return ArraySource(images[chosen], labels[chosen], shape, device)


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

_LEARNS_FROM = {
    "image-folder": "classification",
    "images": "super-resolution",
    "image-masks": "segmentation",
    "image-labels": "multi-label",
}
"""What else than classes is learned from, by the name of the data that has it."""


def _check_task(data: DataSettings, task: TaskSettings) -> None:
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


def _check_classes(labels: Tensor, model: ModelSettings, task: TaskSettings) -> None:
    """Raise UsageError for data of other classes, or labels, than the model has outputs for, and for images of none."""
    if labels.dim() == 2:
        if labels.shape[1] != model.classes:
            raise UsageError(f"model.classes: {model.classes}, but the data has {labels.shape[1]} labels")
    elif task.name == "classification" and (without := int((labels < 0).sum())):  # as of tests whose answers are kept
        raise UsageError(
            f"data: {without} of {len(labels)} images have no class (their label is below zero); name a split whose "
            "images have one, as data.args.test=validation"
        )
    elif model.classes is not None and task.enlarges == 1 and (classes := int(labels.max()) + 1) > model.classes:
        raise UsageError(f"model.classes: {model.classes}, but the data has {classes} classes")


def _check_normalisation(source: OwnSource, data: DataSettings) -> None:
    """Raise UsageError for a mean or deviation that the user's uint8 images do not suit."""
    (inputs, _) = next(source.fitted([torch.tensor([0])]))
    channels = {tensor.shape[1] for tensor in tensors(inputs) if tensor.dtype == torch.uint8}
    for key, values in (("mean", data.mean), ("std", data.std)):
        if values is not None and len(values) > 1 and channels - {len(values)}:
            raise UsageError(f"data.{key}: {len(values)} values for images of {min(channels)} channels")


def data_path(data: DataSettings, directory: Path) -> Path:
    """Return where the data lies: `data.path` relative to the recipe, `~` and variables expanded."""
    return directory / Path(os.path.expandvars(data.path or "../../data")).expanduser()


def _check_channels(data: DataSettings, channels: int) -> None:
    """Raise UsageError for settings that images of so many channels do not suit."""
    if channels not in (1, 3):
        raise UsageError(f"model.input: images have 1 or 3 channels, not {channels}")
    for key, values in (("mean", data.mean), ("std", data.std)):
        if values is not None and len(values) != channels:
            raise UsageError(f"data.{key}: {len(values)} values for images of {channels} channels")
    if data.augment.lighting and channels != 3:
        raise UsageError("data.augment.lighting: for images in colour (model.input of 3 channels); leave it out")


def _some(total: int, limit: int | None, seed: int) -> Tensor:
    """Return which of so many images are used: all, or `limit` drawn by seed, in ascending order."""
    if not limit or limit >= total:
        return torch.arange(total)
    return torch.randperm(total, generator=generator(seed, "limit"))[:limit].sort().values


def _digits(part: Part) -> tuple[Tensor, Tensor]:
    """Return the embedded handwritten digits: (images, 1, 8, 8); the last 360, of other writers, are the test set."""
    with np.load(DIGITS_FILE, allow_pickle=False) as arrays:
        images, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"]).long()
    chosen = slice(None, -360) if part == "train" else slice(-360, None)
    return images[chosen].unsqueeze(1), labels[chosen]


def _torchvision(part: Part, data: DataSettings, directory: Path) -> tuple[Tensor, Tensor]:
    """Return one of torchvision's data sets, downloaded by its own code where missing."""
    import torchvision

    root = data_path(data, directory)
    factory = getattr(torchvision.datasets, _TORCHVISION[data.name])
    options: dict[str, Any] = {"split": part} if data.name == "svhn" else {"train": part == "train"}
    try:
        with contextlib.redirect_stdout(sys.stderr):
            dataset = factory(str(root), download=data.download, **options)
    except ImportError as error:
        raise UsageError(
            f"data.name: {data.name} needs another package ({error}): pip install 'autoslim[svhn]'"
        ) from None
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
    return images, torch.as_tensor(getattr(dataset, "targets", getattr(dataset, "labels", None))).long()
