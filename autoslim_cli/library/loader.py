"""Take batches of inputs and targets from whatever gives them: a DataLoader, a list, any iterable that begins anew."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from autoslim_cli.data.batch import Batch, Each, Tree, images_in, joined, mapped, shapes, tensors
from autoslim_cli.data.own import as_plain
from autoslim_cli.data.sets import Images, as_index, channels_last
from autoslim_cli.data.sources import HeldSource
from autoslim_cli.data.transforms import moved
from autoslim_cli.errors import AutoslimError, UsageError
from autoslim_cli.recipe.schema import AugmentSettings
from autoslim_cli.seeds import seed_from

AnyBatches = Iterable[Any]
"""Batches of (inputs, targets): tensors, or tuples, lists and dictionaries of tensors, of as many images each."""


@dataclass(frozen=True)
class Loader:
    """A caller's batches, as a training learns from them: as many each epoch as at first, on the device."""

    batches: AnyBatches
    first: Batch
    count: int
    device: torch.device

    @property
    def batch(self) -> int:
        """Return the images of a batch; the last of an epoch may have fewer."""
        return images_in(self.first[0])

    def __len__(self) -> int:
        return self.count * self.batch

    def steps(self, batch: int) -> int:
        """Return how many batches an epoch has, whatever their size."""
        del batch
        return self.count

    def part(self, batch: int, rank: int, size: int) -> range:
        """Return the places of a batch: there is one process."""
        del rank, size
        return range(batch)

    def training(
        self, batch: int, seed: int, epoch: int, start: int = 0, *, epochs: int = 1, rank: int = 0, size: int = 1
    ) -> Iterator[Batch]:
        """Yield the batches of epochs from step `start` of one; torch's generator is seeded before the loader begins.

        Raises AutoslimError if there are fewer than at first.
        """
        del batch, rank, size
        for number in range(epoch, epoch + epochs):
            yield from self._epoch(seed, number, start if number == epoch else 0)

    def _epoch(self, seed: int, epoch: int, start: int) -> Iterator[Batch]:
        """Yield the batches of an epoch from step `start`."""
        torch.manual_seed(seed_from(seed, "order", epoch))
        given = 0
        for given, one in enumerate(islice(self.batches, self.count), 1):
            if given > start:
                yield ready(one, self.device)
        if given < self.count:
            raise AutoslimError(
                f"the loader gave {given} batches in epoch {epoch + 1}, where {self.count} were expected: each iter() "
                "must begin anew, as a DataLoader's does"
            )

    def some(self, images: int) -> Iterator[Batch]:
        """Yield batches of at least so many images, if there are, as a new epoch gives them."""
        return (ready(one, self.device) for one in islice(self.batches, -(-images // self.batch)))


def opened(
    batches: AnyBatches, device: torch.device, inputs: Sequence[tuple[int, ...]] | None = None, what: str = "loader"
) -> Loader:
    """Return a caller's batches for a training, once the first was looked at.

    `inputs` are the shapes that the network takes, for one image. Raises UsageError naming `what` if there are no
    batches, if they cannot be passed over twice, or if the first is not of inputs of these shapes, and targets.
    """
    if not isinstance(batches, Iterable):
        raise UsageError(f"{what}: a DataLoader, or another iterable of batches, was expected, not {_kind(batches)}")
    if isinstance(batches, Iterator):
        raise UsageError(
            f"{what}: {_kind(batches)} gives its batches once, and they are needed again: pass a DataLoader, or a list"
        )
    first = next(iter(batches), None)
    if first is None:
        raise UsageError(
            f"{what}: it is empty; of a DataLoader with drop_last the data set has fewer images than a batch"
        )
    found = ready(first, device, what)
    given = [tuple(tensor.shape[1:]) for tensor in tensors(found[0])]
    if inputs is not None and given != list(map(tuple, inputs)):
        raise UsageError(f"{what}: inputs of {_listed(given)}, but the network was read for {_listed(inputs)}")
    try:
        count = len(batches)  # type: ignore[arg-type]
    except TypeError:  # of an IterableDataset nobody knows before
        count = sum(1 for _ in batches)
    return Loader(batches, found, count, device)


def held(loader: Loader) -> Images:
    """Return all images of a loader, read once and kept on the device: a search scores the same ones again and again.

    Raises UsageError for inputs of several sizes, which cannot be scored together.
    """
    inputs, targets = zip(*(ready(one, loader.device) for one in loader.batches), strict=True)
    together = joined(inputs)
    if _holds_each(together) and not any(map(_holds_each, inputs)):
        sizes = sorted({shapes(one) for one in inputs})
        raise UsageError(f"holdout: batches of several sizes cannot be scored together: {sizes[0]}, {sizes[-1]}")
    source = HeldSource(together, joined(targets), "")
    ones = torch.ones(1, device=loader.device)  # floats are taken as they are
    return Images(source, torch.arange(len(source)), 0 * ones, ones, AugmentSettings(), loader.device, None)


def _holds_each(tree: Tree) -> bool:
    """Tell whether a tree holds a tree for each image, of a size of its own."""
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, tuple) else ()
    return isinstance(tree, Each) or any(map(_holds_each, parts))


def ready(batch: object, device: torch.device, what: str = "loader") -> Batch:
    """Return a batch on the device, as networks and tasks take it. Raises UsageError if it is not one."""
    if not isinstance(batch, Sequence) or len(batch) != 2:
        raise UsageError(f"{what}: a batch is a pair of inputs and targets, not {shapes(batch)}")
    try:
        inputs, targets = (mapped(tree, lambda one: moved(as_plain(one), device)) for tree in batch)
    except TypeError as error:
        raise UsageError(f"{what}: {error}") from None
    return mapped(inputs, _image), mapped(targets, as_index)


def _image(images: Tensor) -> Tensor:
    """Return images in the order in memory that networks are kept in. Raises UsageError for pixels of uint8."""
    if images.dtype == torch.uint8:
        raise UsageError("loader: inputs are uint8: let the data set give what the network takes, floats normalised")
    return channels_last(images)


def input_shapes(example: Tree) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of an example's tensors, for one image. Raises UsageError if the first is not of images."""
    try:
        found = tuple(tuple(tensor.shape[1:]) for tensor in tensors(example))
    except TypeError as error:
        raise UsageError(f"example: {error}") from None
    if not found or len(found[0]) != 3:
        raise UsageError(
            f"example: a batch of images (images, channels, height, width) was expected, or a tuple that begins with "
            f"one, not {shapes(example)}"
        )
    return found


def _listed(given: Iterable[Sequence[int]]) -> str:
    return " and ".join(str(tuple(shape)) for shape in given)


def _kind(value: object) -> str:
    return type(value).__name__
