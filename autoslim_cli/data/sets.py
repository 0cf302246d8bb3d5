"""Open a recipe's images, and split off the holdout."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoslim_cli.data.augment import erase, mix, vary
from autoslim_cli.data.folder import ImageFiles, Part, list_images
from autoslim_cli.data.sources import ArraySource, Batch, CachedSource, FileSource, Source
from autoslim_cli.data.transforms import by_policy, moved
from autoslim_cli.errors import AutoslimError, UsageError
from autoslim_cli.recipe.schema import AugmentSettings, DataSettings, ModelSettings
from autoslim_cli.seeds import generator, seed_from

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

    def __len__(self) -> int:
        return len(self.indices)

    def select(self, indices: Tensor) -> "Images":
        """Return the images at these places of the source."""
        return replace(self, indices=indices)

    def take(self, count: int) -> "Images":
        """Return the first `count` images (the split has shuffled them)."""
        return self.select(self.indices[:count])

    def in_memory(self) -> "Images":
        """Return these images with their fitted pixels on the device, decoded here and now."""
        batches = list(self.source.fitted(torch.split(self.indices, 512)))
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        _, *shape = images.shape
        source = ArraySource(images, labels.cpu(), (shape[0], shape[1], shape[2]), self.device)
        return replace(self, source=source, indices=torch.arange(len(labels)))

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
        """Yield the augmented full batches of one epoch from step `start`: float images and labels on the device.

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
        resized = self.augment.crop == "resized"
        loaded = self.source.cropped(batches, seeds, self.augment, places) if resized else self.source.fitted(batches)
        for (images, labels), batch_seed in zip(loaded, seeds, strict=True):
            yield self._varied((images, labels), batch_seed, places)

    def _varied(self, batch: Batch, seed: int, places: Sequence[int]) -> Batch:
        """Return a batch that was loaded, or the part of it that is at some places, as networks train on it."""
        (images, labels), augment = batch, self.augment
        if augment.policy != "none" and augment.crop != "resized":
            varied = [
                by_policy(image, augment.policy, seed_from(seed, n)) for n, image in zip(places, images, strict=True)
            ]
            images = torch.stack(varied)
        images = vary(moved(images, self.device), augment, seed, places)
        images, labels = self._normalised((images, labels))
        if augment.erase:
            images = erase(images, augment.erase, seed, places)
        if augment.mixes:
            images, labels = (both[1:] for both in mix(images, labels, augment, self.classes or 1, seed))
        return images, labels

    def evaluation(self, batch: int, *, rank: int = 0, size: int = 1) -> Iterator[Batch]:
        """Yield all images in order with evaluation transforms; the last batch may be smaller.

        Each of `size` processes gets every `size`-th batch.
        """
        yield from map(self._normalised, self.source.fitted(torch.split(self.indices, batch)[rank::size]))

    def _normalised(self, batch: Batch) -> Batch:
        """Return a batch on the device, its images as floats of the recipe's mean and deviation."""
        images, labels = (moved(part, self.device) for part in batch)
        floats = images.float().div_(255).sub_(self.mean).div_(self.std)
        return floats.contiguous(memory_format=torch.channels_last), labels


def split_holdout(
    source: Source, data: DataSettings, model: ModelSettings, seed: int, device: torch.device
) -> tuple[Images, Images]:
    """Return the training images and the holdout, split by seed.

    Raises UsageError naming the recipe key for a split that leaves nothing.
    """
    order = torch.randperm(len(source.labels), generator=generator(seed, "holdout"))
    if data.holdout >= len(order):
        raise UsageError(f"data.holdout: {data.holdout} of {len(order)} training images leave none to train on")
    images = all_images(source, data, model, device)
    return images.select(order[data.holdout :]), images.select(order[: data.holdout])


def all_images(source: Source, data: DataSettings, model: ModelSettings, device: torch.device) -> Images:
    """Return all images of a source: the test set, or the training set with the holdout, for the final training."""
    mean, std = (torch.tensor(values or (0.5,), device=device).view(-1, 1, 1) for values in (data.mean, data.std))
    return Images(source, torch.arange(len(source.labels)), mean, std, data.augment, device, model.classes)


def open_source(
    part: Part, data: DataSettings, model: ModelSettings, seed: int, directory: Path, device: torch.device
) -> Source:
    """Open one part of a data set: lists its files or reads its arrays, and decodes nothing.

    Raises UsageError naming the recipe key for missing data or images that do not suit the model.
    """
    _check_channels(data, model.input[0])
    limit = data.limit if part == "train" else None
    source: Source
    if data.name == "image-folder":
        files = list_images(data_path(data, directory), part)
        if (chosen := _drawn(len(files.names), limit, seed)) is not None:
            files = ImageFiles(files.directory, [files.names[i] for i in chosen.tolist()], files.labels[chosen])
        source = decoded = FileSource(files, model.input, data.workers)
        channels, height, width = model.input
        if len(decoded) * channels * height * width <= data.memory * 2**30:
            source = CachedSource(decoded, device)
    else:
        images, labels = _digits(part) if data.name == "digits" else _torchvision(part, data, directory)
        if (chosen := _drawn(len(labels), limit, seed)) is not None:
            images, labels = images[chosen], labels[chosen]
        source = ArraySource(images, labels, model.input, device)
    classes = int(source.labels.max()) + 1
    if model.classes is not None and classes > model.classes:
        raise UsageError(f"model.classes: {model.classes}, but the data has {classes} classes")
    return source


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


def _drawn(total: int, limit: int | None, seed: int) -> Tensor | None:
    """Draw `limit` of `total` images by seed, in ascending order; None for all."""
    if not limit or limit >= total:
        return None
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
