"""Hand out labelled images by index. Every source makes the same pixels: where they are kept is a cache."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from autoslim_cli.data.augment import are_mirrored
from autoslim_cli.data.batch import Batch, Tree, chosen, images_in
from autoslim_cli.data.folder import ImageFiles
from autoslim_cli.data.transforms import by_policy, centre, fit, moved, random_part, to_channels
from autoslim_cli.data.workers import Workers
from autoslim_cli.errors import AutoslimError
from autoslim_cli.recipe.schema import AugmentSettings
from autoslim_cli.seeds import seed_from

Shape = tuple[int, int, int]
"""Channels, height and width of a network's input."""

Drawn = tuple[Tensor, int]
"""The places of a batch's images in a source (int64: images), and what its random draws are seeded by."""


class Source(Protocol):
    """A set of images and what belongs to each, that hands out batches by index.

    Images are uint8 (batch, channels, height, width) at the size that is asked for; targets labels (int64: batch), one
    or zero for each label (uint8: batch, labels), or masks (uint8: batch, height, width). Only a data set of the user's
    own may give others.
    """

    def __len__(self) -> int: ...

    @property
    def digest(self) -> str:
        """Return `sha256:...` of what the set holds."""
        ...

    @property
    def class_names(self) -> Sequence[str]:
        """Return what classes, or labels, are called, in their order: nothing where the set does not tell."""
        ...

    def fitted(self, batches: Iterable[Tensor]) -> Iterator[Batch]:
        """Yield batches of images resized and cropped at the centre, as `transforms.fit` does, of their places.

        Each batch of places is (int64: images), what is made of it (uint8: images, channels, height, width). Which
        batches are wanted is asked for as they are made, or a few ahead.
        """
        ...

    def cropped(self, batches: Iterable[Drawn], augment: AugmentSettings, places: Sequence[int]) -> Iterator[Batch]:
        """Yield batches of images (uint8) of which each is a random part, drawn by its batch's seed and its place.

        `places` are those of the images in each batch; a policy comes next, if there is one.
        """
        ...


class ArraySource:
    """Images that are given as one uint8 tensor (images, 1 or 3, height, width) and kept on the device.

    `at_own_scale`: images are cropped at the centre, and not resized.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        shape: Shape,
        device: torch.device,
        class_names: Sequence[str] = (),
        *,
        at_own_scale: bool = False,
    ) -> None:
        self.images, self.labels, self.shape = images.contiguous().to(device), labels, shape
        self.class_names, self.at_own_scale = class_names, at_own_scale

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digest(self) -> str:
        """Return `sha256:...` of pixels and labels."""
        hashed = hashlib.sha256(repr((list(self.images.shape), self.labels.tolist())).encode())
        hashed.update(self.images.cpu().numpy().data)
        return f"sha256:{hashed.hexdigest()}"

    def fitted(self, batches: Iterable[Tensor]) -> Iterator[Batch]:
        """Yield batches as `transforms.fit` or `transforms.centre` makes them."""
        _, height, width = self.shape
        made = centre if self.at_own_scale else fit
        for indices in batches:
            yield made(self._originals(indices), height, width).contiguous(), self.labels[indices]

    def cropped(self, batches: Iterable[Drawn], augment: AugmentSettings, places: Sequence[int]) -> Iterator[Batch]:
        """Yield batches of random parts."""
        _, height, width = self.shape
        for indices, seed in batches:
            images = zip(self._originals(indices), _parts(augment, seed, places), strict=True)
            yield torch.stack([part.of(image, None, height, width)[0] for image, part in images]), self.labels[indices]

    def _originals(self, indices: Tensor) -> Tensor:
        return to_channels(self.images[moved(indices, self.images.device)], self.shape[0])


@dataclass(frozen=True)
class RandomPart:
    """What one image's random part is drawn by, and whether that is mirrored."""

    seed: int
    augment: AugmentSettings
    is_mirrored: bool

    def of(self, image: Tensor, mask: Tensor | None, height: int, width: int) -> tuple[Tensor, Tensor | None]:
        """Return the part of an image (uint8: channels, rows, columns) and of its mask (rows, columns), if any."""
        image, mask = random_part(image, mask, height, width, self.augment, self.seed)
        image = by_policy(image, self.augment.policy, self.seed)
        if not self.is_mirrored:
            return image, mask
        return image.flip(-1), None if mask is None else mask.flip(-1)


def _parts(augment: AugmentSettings, seed: int, places: Sequence[int]) -> list[RandomPart]:
    """Return what the images at some places of a batch are cut by, which is drawn by its seed."""
    mirrored = are_mirrored(augment, seed, places)
    return [RandomPart(seed_from(seed, n), augment, is_it) for n, is_it in zip(places, mirrored, strict=True)]


LOOKED_AT = 8
"""Masks that are looked at when they are opened."""


@dataclass(frozen=True)
class Masks:
    """The files that have them, and what their values may be: below `classes`, or `ignored`."""

    files: ImageFiles
    classes: int
    ignored: int

    def doubtful(self) -> str:
        """Say so if some of the masks hold one class and nothing else but what is ignored; nothing if they are sound.

        Of masks of 0 and 255, where 255 is ignored, a network that gives 0 everywhere would be perfect.
        """
        places = sorted({round(n * (len(self.files) - 1) / (LOOKED_AT - 1)) for n in range(LOOKED_AT)})
        values = {value for place in places for value in set(self.files.mask(place)[0].flatten().tolist())}
        if self.classes < 2 or self.ignored not in values or len(values) != 2:
            return ""
        (only,) = values - {self.ignored}
        return (
            f"of {len(places)} masks all pixels are of class {only} or {self.ignored}, which task.ignore_index leaves "
            f"out of every score: if {self.ignored} is a class, write it below {self.classes}, or set task.ignore_index"
        )


class Encoded(Protocol):
    """Images that are decoded each time that they are asked for, wherever their files lie."""

    @property
    def labels(self) -> Tensor:
        """Return the class of each image (int64: images), or what else belongs to it."""
        ...

    @property
    def class_names(self) -> Sequence[str]:
        """Return what classes, or labels, are called, in their order: nothing where that is not known."""
        ...

    def __len__(self) -> int: ...

    def image(self, place: int) -> Tensor:
        """Return an image, uint8 (1 or 3, rows, columns). Raises AutoslimError naming it if it is damaged."""
        ...

    def digest(self) -> str:
        """Return `sha256:...` of what tells these images from others, without reading all of them."""
        ...


class FileSource(Dataset[tuple[Tensor, Tensor]]):
    """Image files, decoded by worker processes each time that they are asked for.

    With `masks` each image's target is its mask. `at_own_scale`: images are cropped at the centre, and not resized.
    """

    def __init__(
        self,
        files: Encoded,
        shape: Shape,
        workers: int,
        *,
        masks: Masks | None = None,
        at_own_scale: bool = False,
    ) -> None:
        self.files, self.labels, self.class_names, self.shape = files, files.labels, files.class_names, shape
        self.masks, self.at_own_scale = masks, at_own_scale
        self.workers = Workers(copy(self), workers, _by_pixel)

    @cached_property
    def digest(self) -> str:
        """Return `sha256:...` of what tells these files from others."""
        return self.files.digest()

    def fitted(self, batches: Iterable[Tensor]) -> Iterator[Batch]:
        """Yield batches as `transforms.fit` makes them."""
        return self._load(map(_fitted_keys, batches))

    def cropped(self, batches: Iterable[Drawn], augment: AugmentSettings, places: Sequence[int]) -> Iterator[Batch]:
        """Yield batches of random parts."""
        return self._load(
            list(zip(indices.tolist(), _parts(augment, seed, places), strict=True)) for indices, seed in batches
        )

    def _load(self, batches: Iterable[Sequence[tuple[int, RandomPart | None]]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches that workers decode."""
        return self.workers.load(batches)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: tuple[int, RandomPart | None]) -> tuple[Tensor, Tensor]:
        """Return one image (uint8: channels, height, width), fitted or a random part of it, and its target."""
        index, part = key
        channels, height, width = self.shape
        image = to_channels(self.files.image(index), channels)
        mask = self._mask(index, image)
        if part is not None:
            image, mask = part.of(image, mask, height, width)
        else:
            image = centre(image, height, width) if self.at_own_scale else fit(image, height, width)
            mask = None if mask is None else fit(mask.unsqueeze(0), height, width, nearest=True).squeeze(0)
        image = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # as decoders write it
        return image, self.labels[index] if mask is None else mask.contiguous()

    def _mask(self, index: int, image: Tensor) -> Tensor | None:
        """Return an image's mask (uint8: rows, columns), if it has one.

        Raises AutoslimError naming the file if it is not as large as the image, or holds a class beyond the last.
        """
        if self.masks is None:
            return None
        mask, path = self.masks.files.mask(index)
        if mask.shape != image.shape[1:]:
            raise AutoslimError(f"{path}: a mask of {list(mask.shape)} pixels of an image of {list(image.shape[1:])}")
        named = mask[mask != self.masks.ignored]
        if len(named) and (most := int(named.max())) >= self.masks.classes:
            raise AutoslimError(
                f"{path}: a pixel of class {most}, but model.classes is {self.masks.classes}: classes count from 0, "
                f"and task.ignore_index={self.masks.ignored} does not count"
            )
        return mask


class CachedSource:
    """Image files whose fitted pixels stay on the device once they were decoded; only what is asked for is.

    Random parts are cut from the files' own pixels, which are not kept: those go through the workers every time.
    """

    def __init__(self, source: FileSource, device: torch.device) -> None:
        self.source, self.labels, self.class_names, self.device = source, source.labels, source.class_names, device
        self.cropped = source.cropped
        self._masks = torch.empty((len(source), *source.shape[1:]) if source.masks else 0, dtype=torch.uint8)
        self._is_decoded = torch.zeros(len(source), dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.source)

    @property
    def digest(self) -> str:
        """Return `sha256:...` of the files' labels, names and sizes."""
        return self.source.digest

    @cached_property
    def _pixels(self) -> Tensor:
        with torch.inference_mode(False):  # a calibration may ask first, and a training writes into them after
            return torch.empty(len(self.source), *self.source.shape, dtype=torch.uint8, device=self.device)

    def fitted(self, batches: Iterable[Tensor]) -> Iterator[Batch]:
        """Yield batches from memory; what is not there yet is decoded by threads."""
        for indices in batches:
            missing = indices[~self._is_decoded[indices]]
            if len(missing):
                with ThreadPoolExecutor() as threads:
                    images, targets = zip(*threads.map(self.source.__getitem__, _fitted_keys(missing)), strict=True)
                self._pixels[moved(missing, self.device)] = moved(torch.stack(images), self.device)
                if self.source.masks:
                    self._masks[missing] = torch.stack(targets)
                self._is_decoded[missing] = True
            targets_of = self._masks if self.source.masks else self.labels
            yield self._pixels[moved(indices, self.device)], targets_of[indices]


class HeldSource:
    """Items of any shape that are kept as they are, on the device."""

    def __init__(self, inputs: Tree, targets: Tree, digest: str) -> None:
        self.inputs, self.targets, self.digest = inputs, targets, digest
        self.class_names: Sequence[str] = ()

    def __len__(self) -> int:
        return images_in(self.inputs)

    def fitted(self, batches: Iterable[Tensor]) -> Iterator[Batch]:
        """Yield batches."""
        for indices in batches:
            yield chosen(self.inputs, indices), chosen(self.targets, indices)

    def cropped(self, batches: Iterable[Drawn], augment: AugmentSettings, places: Sequence[int]) -> Iterator[Batch]:
        """Yield batches: what is kept does not vary."""
        del augment, places
        return self.fitted(indices for indices, _ in batches)


def _fitted_keys(indices: Tensor) -> list[tuple[int, RandomPart | None]]:
    """Return the keys by which a FileSource hands out fitted images."""
    return [(index, None) for index in indices.tolist()]


def _by_pixel(items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return a batch of images with the channels last in memory, as they were decoded and as networks take them."""
    images, targets = default_collate([(image.permute(1, 2, 0), target) for image, target in items])
    return images.permute(0, 3, 1, 2), targets
