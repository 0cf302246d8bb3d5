"""Load images: small sets decoded once into memory, larger ones by worker processes; split off the holdout."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from autoslim_cli.errors import AutoslimError, UsageError
from autoslim_cli.files.recipe import AugmentSettings, DataSettings, ModelSettings
from autoslim_cli.training.augment import flip_and_crop
from autoslim_cli.training.runtime import generator, seed_from

Part = Literal["train", "test"]
Batch = tuple[Tensor, Tensor]
"""Images (uint8: batch, channels, height, width) and labels (int64: batch)."""

DIGITS_FILE = Path(__file__).parent / "digits.npz"
SMALL = 64
"""Images up to this height are resized whole; larger ones lose their borders to a central crop in evaluation."""
_TORCHVISION = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "fashion-mnist": "FashionMNIST", "svhn": "SVHN"}


class Source(Protocol):
    """A set of labelled images that hands out batches by index."""

    labels: Tensor

    def plain(self, batches: list[Tensor]) -> Iterator[Batch]:
        """Yield batches with evaluation transforms."""
        ...

    def augmented(self, batches: list[Tensor], seeds: list[int]) -> Iterator[Batch]:
        """Yield batches with training transforms, each batch's randomness from its own seed."""
        ...


class MemorySource:
    """Images decoded once into the device's memory as uint8 (images, channels, height, width)."""

    def __init__(self, images: Tensor, labels: Tensor, augment: AugmentSettings, device: torch.device) -> None:
        self.images, self.labels, self.augment = images.to(device), labels, augment

    def plain(self, batches: list[Tensor]) -> Iterator[Batch]:
        """Yield batches as they are."""
        for indices in batches:
            yield self.images[indices.to(self.images.device)], self.labels[indices]

    def augmented(self, batches: list[Tensor], seeds: list[int]) -> Iterator[Batch]:
        """Yield batches in which each image has its own crop and flip."""
        for indices, seed in zip(batches, seeds, strict=True):
            random = torch.Generator().manual_seed(seed)
            images = self.images[indices.to(self.images.device)]
            yield flip_and_crop(images, self.augment, random), self.labels[indices]


class WorkerSource:
    """Image files decoded by worker processes, every image with a random seed of its own."""

    def __init__(self, files: list[Path], labels: Tensor, decode: "Decoder", augment: Any, workers: int) -> None:
        self.files, self.labels, self.decode, self.transform, self.workers = files, labels, decode, augment, workers

    def plain(self, batches: list[Tensor]) -> Iterator[Batch]:
        """Yield batches of resized and centrally cropped images."""
        return self._load([[(int(i), None) for i in indices] for indices in batches])

    def augmented(self, batches: list[Tensor], seeds: list[int]) -> Iterator[Batch]:
        """Yield batches of randomly cropped and mirrored images."""
        keyed = zip(batches, seeds, strict=True)
        return self._load([[(int(i), seed_from(seed, n)) for n, i in enumerate(batch)] for batch, seed in keyed])

    def _load(self, batches: list[list[tuple[int, int | None]]]) -> Iterator[Batch]:
        make: Any = torch.utils.data.DataLoader
        loader = make(self, batch_sampler=batches, num_workers=self.workers, pin_memory=torch.cuda.is_available())
        try:
            yield from loader
        except AutoslimError as error:  # a worker's error comes with the worker's traceback as its text
            raise AutoslimError(str(error).strip().splitlines()[-1].rpartition("AutoslimError: ")[2]) from None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: tuple[int, int | None]) -> tuple[Tensor, int]:
        index, seed = key
        if seed is None:
            image = self.decode(self.files[index])
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                image = self.transform(self.decode.open(self.files[index]))
        return image, int(self.labels[index])


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
        source = _image_folder(part, data, model, directory, limit, seed, device)
    else:
        images, labels = _digits(part) if data.name == "digits" else _torchvision(part, data, directory)
        if limit and limit < len(labels):
            chosen = _limited(len(labels), limit, seed)
            images, labels = images[chosen], labels[chosen]
        if data.augment.crop == "resized":
            raise UsageError("data.augment.crop: resized is for image-folder data; use pad")
        source = MemorySource(_fitted(images, model.input), labels, data.augment, device)
    classes = int(source.labels.max()) + 1
    if classes > model.classes:
        raise UsageError(f"model.classes: {model.classes}, but the data has {classes} classes")
    return source


def _limited(total: int, limit: int, seed: int) -> Tensor:
    """Draw `limit` of `total` images by seed, in ascending order."""
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


def data_path(data: DataSettings, directory: Path) -> Path:
    """Return where the data lies: `data.path` relative to the recipe, `~` and variables expanded."""
    return directory / Path(os.path.expandvars(data.path or "../../data")).expanduser()


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


class Decoder:
    """Decode an image file into uint8 (channels, height, width), resized and centrally cropped for evaluation."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        channels, height, width = shape
        self.mode = "L" if channels == 1 else "RGB"
        self.shape = (height, width)

    @cached_property
    def fit(self) -> Callable[[Any], Tensor]:
        """Return torchvision's transform; images of the right size never import it."""
        from torchvision.transforms import v2

        height, width = self.shape
        resize = height if height <= SMALL else round(height / 0.875)
        fit: Callable[[Any], Tensor] = v2.Compose(
            [v2.Resize(resize, antialias=True), v2.CenterCrop([height, width]), v2.PILToTensor()]
        )
        return fit

    def open(self, path: Path) -> Any:
        """Return the image as a PIL image in the network's colours."""
        from PIL import Image

        try:
            with Image.open(path) as image:
                return image.convert(self.mode)
        except OSError as error:
            raise AutoslimError(f"{path} cannot be read as an image ({error}); remove it or write it again") from None

    def __call__(self, path: Path) -> Tensor:
        """Return the image for evaluation."""
        image = self.open(path)
        if image.size == self.shape[::-1]:
            array: np.ndarray[Any, Any] = np.array(image)
            return torch.from_numpy(array.reshape(*self.shape, -1)).permute(2, 0, 1)
        return self.fit(image)


def _image_folder(
    part: Part,
    data: DataSettings,
    model: ModelSettings,
    directory: Path,
    limit: int | None,
    seed: int,
    device: torch.device,
) -> Source:
    """Open a directory with train/<class>/ and test/<class>/ or val/<class>/."""
    root = data_path(data, directory)
    place = _part_directory(root, part)
    classes = _classes(_part_directory(root, "train"))
    if strange := sorted(set(_classes(place)) - set(classes)):
        raise UsageError(f"data.path: {place / strange[0]} is a class that {root / 'train'} does not have")
    files, targets = [], []
    for label, name in enumerate(classes):
        found = [entry for entry in sorted((place / name).rglob("*")) if entry.suffix.lower() in _SUFFIXES]
        if part == "train" and not found:
            raise UsageError(f"data.path: no images in {place / name}; remove the directory if it is no class")
        files += found
        targets += [label] * len(found)
    if not files:
        raise UsageError(f"data.path: no images in the class directories of {place}")
    labels = torch.tensor(targets)
    if limit and limit < len(files):
        chosen = _limited(len(files), limit, seed)
        files, labels = [files[int(i)] for i in chosen], labels[chosen]
    channels, height, width = model.input
    decode = Decoder(model.input)
    gibibytes = len(files) * channels * height * width / 2**30
    if gibibytes <= data.memory and data.augment.crop != "resized":
        images = torch.empty(len(files), channels, height, width, dtype=torch.uint8)

        def fill(index: int) -> None:
            images[index] = decode(files[index])

        with ThreadPoolExecutor() as pool:
            for _ in pool.map(fill, range(len(files)), chunksize=256):
                pass
        return MemorySource(images, labels, data.augment, device)
    return WorkerSource(files, labels, decode, _training_transform(model, data.augment), data.workers)


def _part_directory(root: Path, part: Part) -> Path:
    """Return the directory of one part of an image folder."""
    names = ("train",) if part == "train" else ("test", "val")
    place = next((root / name for name in names if (root / name).is_dir()), None)
    if place is None:
        raise UsageError(f"data.path: {root} has no directory {' or '.join(names)}/ with one directory per class")
    return place


def _classes(place: Path) -> list[str]:
    """Return the classes of a directory: the training part's order gives the labels."""
    return sorted(entry.name for entry in os.scandir(place) if entry.is_dir() and not entry.name.startswith("."))


def _training_transform(model: ModelSettings, augment: AugmentSettings) -> Callable[[Any], Tensor]:
    """Return torchvision's random transforms from a PIL image to uint8 (channels, height, width)."""
    from torchvision.transforms import v2

    _, height, width = model.input
    size = [height, width]
    steps: list[Any] = {
        "none": [v2.Resize(height, antialias=True), v2.CenterCrop(size)],
        "pad": [v2.Resize(height, antialias=True), v2.CenterCrop(size), v2.RandomCrop(size, padding=augment.padding)],
        "resized": [v2.RandomResizedCrop(size, scale=augment.scale, antialias=True)],
    }[augment.crop]
    if augment.flip:
        steps.append(v2.RandomHorizontalFlip())
    transform: Callable[[Any], Tensor] = v2.Compose([*steps, v2.PILToTensor()])
    return transform


_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))
