"""Open a directory of images: train/<class>/, and test/<class>/ or val/<class>/."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoslim_cli.data.sources import MemorySource, Part, Source, WorkerSource, limited
from autoslim_cli.errors import AutoslimError, UsageError
from autoslim_cli.recipe.schema import AugmentSettings, DataSettings, ModelSettings

SMALL = 64
"""Images up to this height are resized whole; larger ones lose their borders to a central crop in evaluation."""
_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))


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


def open_image_folder(
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
        chosen = limited(len(files), limit, seed)
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


def data_path(data: DataSettings, directory: Path) -> Path:
    """Return where the data lies: `data.path` relative to the recipe, `~` and variables expanded."""
    return directory / Path(os.path.expandvars(data.path or "../../data")).expanduser()
