"""Open a recipe's images: small sets whole in memory, larger ones by worker processes; split off the holdout."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoslim_cli.data.folder import data_path, open_image_folder
from autoslim_cli.data.sources import Batch, MemorySource, Part, Source, limited
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
    device: torch.device

    def __len__(self) -> int:
        return len(self.indices)

    def only(self, indices: Tensor) -> "Images":
        """Return the images at these places of the source."""
        return Images(self.source, indices, self.mean, self.std, self.device)

    def first(self, count: int) -> "Images":
        """Return the first `count` images (the split has shuffled them)."""
        return self.only(self.indices[:count])

    def held(self) -> "Images":
        """Return these images decoded once, held on the device as bytes."""
        batches = list(self.source.plain(list(torch.split(self.indices, 512))))
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        source = MemorySource(images, labels.cpu(), AugmentSettings(), self.device)
        return Images(source, torch.arange(len(labels)), self.mean, self.std, self.device)

    def steps(self, batch: int) -> int:
        """Return the full batches of one epoch; one if there are fewer images than that."""
        return max(1, len(self) // batch)

    def training(self, batch: int, seed: int, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the augmented full batches of one epoch from step `start`: float images and labels on the device.

        Order and augmentation depend on (seed, epoch, step) alone.
        """
        order = self.indices[torch.randperm(len(self), generator=generator(seed, "order", epoch))]
        steps = range(start, self.steps(batch))
        batches = [order[step * batch : (step + 1) * batch] for step in steps]
        seeds = [seed_from(seed, "augment", epoch, step) for step in steps]
        yield from map(self._ready, self.source.augmented(batches, seeds))

    def evaluation(self, batch: int) -> Iterator[Batch]:
        """Yield all images in order with evaluation transforms; the last batch may be smaller."""
        yield from map(self._ready, self.source.plain(list(torch.split(self.indices, batch))))

    def _ready(self, batch: Batch) -> Batch:
        """Move a batch to the device and normalise it."""
        images, labels = (part.to(self.device, non_blocking=True) for part in batch)
        floats = images.float().div_(255).sub_(self.mean).div_(self.std)
        return floats.contiguous(memory_format=torch.channels_last), labels


def split_holdout(source: Source, data: DataSettings, seed: int, device: torch.device) -> tuple[Images, Images]:
    """Return the training images and the holdout, split by seed.

    Raises UsageError naming the recipe key for a split that leaves nothing.
    """
    order = torch.randperm(len(source.labels), generator=generator(seed, "holdout"))
    if data.holdout >= len(order):
        raise UsageError(f"data.holdout: {data.holdout} of {len(order)} training images leave none to train on")
    images = whole(source, data, device)
    return images.only(order[data.holdout :]), images.only(order[: data.holdout])


def whole(source: Source, data: DataSettings, device: torch.device) -> Images:
    """Return all images of a source: the test set, or the training set with the holdout, for the final training."""
    mean, std = (torch.tensor(values or (0.5,), device=device).view(-1, 1, 1) for values in (data.mean, data.std))
    return Images(source, torch.arange(len(source.labels)), mean, std, device)


def open_source(
    part: Part, data: DataSettings, model: ModelSettings, seed: int, directory: Path, device: torch.device
) -> Source:
    """Open one part of a data set; small images are decoded onto the device.

    Raises UsageError naming the recipe key for missing data or images that do not suit the model.
    """
    channels = model.input[0]
    for key, values in (("mean", data.mean), ("std", data.std)):
        if values is not None and len(values) != channels:
            raise UsageError(f"data.{key}: {len(values)} values for images of {channels} channels")
    limit = data.limit if part == "train" else None
    if data.name == "image-folder":
        source = open_image_folder(part, data, model, directory, limit, seed, device)
    else:
        images, labels = _digits(part) if data.name == "digits" else _torchvision(part, data, directory)
        if limit and limit < len(labels):
            chosen = limited(len(labels), limit, seed)
            images, labels = images[chosen], labels[chosen]
        if data.augment.crop == "resized":
            raise UsageError("data.augment.crop: resized is for image-folder data; use pad")
        source = MemorySource(_fitted(images, model.input), labels, data.augment, device)
    classes = int(source.labels.max()) + 1
    if classes > model.classes:
        raise UsageError(f"model.classes: {model.classes}, but the data has {classes} classes")
    return source


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


def _fitted(images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Bring images to the network's channels, height and width."""
    channels, height, width = shape
    if images.shape[1] != channels:
        grey = images.float().mean(1, keepdim=True).round().to(torch.uint8) if images.shape[1] > 1 else images
        images = grey.expand(-1, channels, -1, -1)
    if images.shape[2:] != (height, width):
        from torchvision.transforms.v2 import functional

        images = functional.resize(images, [height, width], antialias=True)
    return images.contiguous()
