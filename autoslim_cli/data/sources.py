"""Hand out labelled images by index. Every source makes the same pixels: where they are kept is a cache."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from autoslim_cli.data.decode import decode
from autoslim_cli.data.folder import ImageFiles
from autoslim_cli.data.transforms import by_policy, fit, moved, resized_crop, to_channels
from autoslim_cli.errors import AutoslimError
from autoslim_cli.machine import available_cores
from autoslim_cli.recipe.schema import AugmentSettings
from autoslim_cli.seeds import seed_from

Shape = tuple[int, int, int]
"""Channels, height and width of a network's input."""
Batch = tuple[Tensor, Tensor]
"""Images (uint8: batch, channels, height, width) and labels (int64: batch)."""


class Source(Protocol):
    """A set of labelled images that hands out batches by index, at the size of a network's input."""

    labels: Tensor

    @property
    def digest(self) -> str:
        """Return `sha256:...` of what the set holds."""
        ...

    def fitted(self, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield batches of images (uint8) resized and cropped at the centre, as `transforms.fit` does."""
        ...

    def cropped(
        self, batches: Sequence[Tensor], seeds: Sequence[int], augment: AugmentSettings, places: Sequence[int]
    ) -> Iterator[Batch]:
        """Yield batches of images (uint8) of which each is a random part, drawn by its batch's seed and its place.

        `places` are those of the images in each batch; a policy comes next, if there is one.
        """
        ...


class ArraySource:
    """Images that are given as one uint8 tensor (images, 1 or 3, height, width) and kept on the device."""

    def __init__(self, images: Tensor, labels: Tensor, shape: Shape, device: torch.device) -> None:
        self.images, self.labels, self.shape = images.contiguous().to(device), labels, shape

    @cached_property
    def digest(self) -> str:
        """Return `sha256:...` of pixels and labels."""
        hashed = hashlib.sha256(repr((list(self.images.shape), self.labels.tolist())).encode())
        hashed.update(self.images.cpu().numpy().data)
        return f"sha256:{hashed.hexdigest()}"

    def fitted(self, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield batches as `transforms.fit` makes them."""
        _, height, width = self.shape
        for indices in batches:
            yield fit(self._originals(indices), height, width).contiguous(), self.labels[indices]

    def cropped(
        self, batches: Sequence[Tensor], seeds: Sequence[int], augment: AugmentSettings, places: Sequence[int]
    ) -> Iterator[Batch]:
        """Yield batches of random parts."""
        _, height, width = self.shape
        for indices, seed in zip(batches, seeds, strict=True):
            keys = [Part(seed_from(seed, place), augment.scale, augment.policy) for place in places]
            images = zip(self._originals(indices), keys, strict=True)
            yield torch.stack([key.of(image, height, width) for image, key in images]), self.labels[indices]

    def _originals(self, indices: Tensor) -> Tensor:
        return to_channels(self.images[moved(indices, self.images.device)], self.shape[0])


@dataclass(frozen=True)
class Part:
    """What one image's random part is drawn by, and what else is done to it."""

    seed: int
    scale: tuple[float, float]
    policy: str

    def of(self, image: Tensor, height: int, width: int) -> Tensor:
        """Return the part of an image (uint8: channels, rows, columns), resized."""
        return by_policy(resized_crop(image, height, width, self.scale, self.seed), self.policy, self.seed)


class FileSource(Dataset[tuple[Tensor, int]]):
    """Image files, decoded by worker processes each time that they are asked for."""

    def __init__(self, files: ImageFiles, shape: Shape, workers: int) -> None:
        self.files, self.labels, self.shape, self.workers = files, files.labels, shape, workers

    @cached_property
    def digest(self) -> str:
        """Return `sha256:...` of the files' labels, names and sizes: reading all pixels would take hours.

        Raises AutoslimError for a file that has gone.
        """
        hashed = hashlib.sha256()
        for name, label in zip(self.files.names, self.labels.tolist(), strict=True):
            try:
                size = (self.files.directory / name).stat().st_size
            except OSError as error:
                raise AutoslimError(f"{self.files.directory / name} cannot be read ({error.strerror})") from None
            hashed.update(f"{label}\t{name}\t{size}\n".encode())
        return f"sha256:{hashed.hexdigest()}"

    def fitted(self, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield batches as `transforms.fit` makes them."""
        return self._load(map(_fitted_keys, batches))

    def cropped(
        self, batches: Sequence[Tensor], seeds: Sequence[int], augment: AugmentSettings, places: Sequence[int]
    ) -> Iterator[Batch]:
        """Yield batches of random parts."""
        return self._load(
            [
                (index, Part(seed_from(seed, place), augment.scale, augment.policy))
                for place, index in zip(places, indices.tolist(), strict=True)
            ]
            for indices, seed in zip(batches, seeds, strict=True)
        )

    def _load(self, batches: Iterable[list[tuple[int, Part | None]]]) -> Iterator[Batch]:
        """Yield batches that workers decode; their errors come without the workers' tracebacks."""
        workers = min(self.workers, available_cores())  # more would wait for each other
        loader: DataLoader[tuple[Tensor, int]] = DataLoader(
            self, batch_sampler=batches, num_workers=workers, pin_memory=torch.cuda.is_available()
        )
        try:
            yield from loader
        except AutoslimError as error:  # a worker's error comes with the worker's traceback as its text
            raise AutoslimError(str(error.args[0]).strip().splitlines()[-1].rpartition("AutoslimError: ")[2]) from None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: tuple[int, Part | None]) -> tuple[Tensor, int]:
        """Return one image (uint8: channels, height, width), fitted or a random part of it, and its label."""
        index, part = key
        channels, height, width = self.shape
        image = to_channels(decode(self.files.directory / self.files.names[index]), channels)
        image = fit(image, height, width) if part is None else part.of(image, height, width)
        return image.contiguous(), int(self.labels[index])


class CachedSource:
    """Image files whose fitted pixels stay on the device once they were decoded; only what is asked for is.

    Random parts are cut from the files' own pixels, which are not kept: those go through the workers every time.
    """

    def __init__(self, source: FileSource, device: torch.device) -> None:
        self.source, self.labels, self.device = source, source.labels, device
        self.cropped = source.cropped
        self._is_decoded = torch.zeros(len(source), dtype=torch.bool)

    @property
    def digest(self) -> str:
        """Return `sha256:...` of the files' labels, names and sizes."""
        return self.source.digest

    @cached_property
    def _pixels(self) -> Tensor:
        with torch.inference_mode(False):  # a calibration may ask first, and a training writes into them after
            return torch.empty(len(self.source), *self.source.shape, dtype=torch.uint8, device=self.device)

    def fitted(self, batches: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield batches from memory; what is not there yet is decoded by threads."""
        for indices in batches:
            missing = indices[~self._is_decoded[indices]]
            if len(missing):
                with ThreadPoolExecutor() as threads:
                    images = [image for image, _ in threads.map(self.source.__getitem__, _fitted_keys(missing))]
                self._pixels[moved(missing, self.device)] = moved(torch.stack(images), self.device)
                self._is_decoded[missing] = True
            yield self._pixels[moved(indices, self.device)], self.labels[indices]


def _fitted_keys(indices: Tensor) -> list[tuple[int, Part | None]]:
    """Return the keys by which a FileSource hands out fitted images."""
    return [(index, None) for index in indices.tolist()]
