"""Hand out labelled images by index: from memory, or decoded by worker processes."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from autoslim_cli.data.augment import flip_and_crop
from autoslim_cli.errors import AutoslimError
from autoslim_cli.recipe.schema import AugmentSettings
from autoslim_cli.seeds import generator, seed_from

Part = Literal["train", "test"]
Batch = tuple[Tensor, Tensor]
"""Images (uint8: batch, channels, height, width) and labels (int64: batch)."""


class Source(Protocol):
    """A set of labelled images that hands out batches by index."""

    labels: Tensor

    @property
    def digest(self) -> str:
        """Return `sha256:...` of what the set holds."""
        ...

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

    @property
    def digest(self) -> str:
        """Return `sha256:...` of pixels and labels."""
        hashed = hashlib.sha256(repr((list(self.images.shape), self.labels.tolist())).encode())
        hashed.update(self.images.cpu().numpy().tobytes())
        return f"sha256:{hashed.hexdigest()}"

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

    @property
    def digest(self) -> str:
        """Return `sha256:...` of names and sizes."""
        rows = [f"{file.name} {file.stat().st_size}" for file in self.files]
        return f"sha256:{hashlib.sha256(repr((rows, self.labels.tolist())).encode()).hexdigest()}"

    def __init__(self, files: list[Path], labels: Tensor, decode: Any, augment: Any, workers: int) -> None:
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


def limited(total: int, limit: int, seed: int) -> Tensor:
    """Draw `limit` of `total` images by seed, in ascending order."""
    return torch.randperm(total, generator=generator(seed, "limit"))[:limit].sort().values
