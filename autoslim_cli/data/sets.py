"""Hand out a recipe's images as networks learn from them and are scored on them, and split off the holdout."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from autoslim_cli.data.augment import erase, mix, vary, vary_masks
from autoslim_cli.data.batch import Batch, Tree, joined, mapped
from autoslim_cli.data.own import OwnSource
from autoslim_cli.data.sources import ArraySource, Drawn, HeldSource, Source
from autoslim_cli.data.transforms import by_policy, moved, reduced
from autoslim_cli.errors import UsageError
from autoslim_cli.recipe.schema import AugmentSettings, DataSettings, ModelSettings, TaskSettings, normalisation
from autoslim_cli.seeds import generator, seed_from

CLASSIFICATION = TaskSettings()


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

    def decode(self, batch: int, *, rank: int = 0, size: int = 1) -> None:
        """Decode all images once, so many at a time, each of `size` processes its share.

        Raises AutoslimError naming a damaged one.
        """
        for _ in self.source.fitted(torch.split(self.indices, batch)[rank::size] if len(self) else ()):
            pass

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
        self, batch: int, seed: int, epoch: int, start: int = 0, *, epochs: int = 1, rank: int = 0, size: int = 1
    ) -> Iterator[Batch]:
        """Yield the augmented full batches of epochs from step `start` of one: float images and targets on the device.

        Order and augmentation depend on (seed, epoch, step) alone, an image's draws on its place in the batch as well.
        So `size` processes, each of which gets its part of every batch, see what one would. Of several `epochs` the
        next one's first images are loaded while the last ones of the one before are learned from.
        """
        whole, part = min(batch, len(self)), self.part(batch, rank, size)
        # An image is mixed with the one before it in the whole batch: that one comes along.
        places = [*([(part.start - 1) % whole] if self.augment.mixes else []), *part]
        plan, drawn = itertools.tee(self._plan(batch, seed, range(epoch, epoch + epochs), start, places))
        own = isinstance(self.source, OwnSource)
        if own or self.augment.crops_files:
            loaded = self.source.cropped(plan, self.augment, places)
        else:
            loaded = self.source.fitted(indices for indices, _ in plan)
        for one, (_, batch_seed) in zip(loaded, drawn, strict=True):
            yield self._normalised(one) if own else self._varied(one, batch_seed, places)

    def _plan(self, batch: int, seed: int, epochs: range, start: int, places: Sequence[int]) -> Iterator[Drawn]:
        """Yield what is at some places of each batch, and the batch's seed, from step `start` of the first epoch."""
        for epoch in epochs:
            order = self.indices[torch.randperm(len(self), generator=generator(seed, "order", epoch))]
            for step in range(start, self.steps(batch)):
                yield order[[step * batch + place for place in places]], seed_from(seed, "augment", epoch, step)
            start = 0

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
        if images.dtype != torch.uint8:
            return channels_last(images)
        if images.dim() != 4:
            return images.float().div_(255).sub_(self.mean).div_(self.std)
        # By rows, the channels of their pixels side by side: three values at a time would take several times as long.
        floats = images.to(torch.float32, memory_format=torch.channels_last)
        count, channels, height, width = floats.shape
        mean, std = (each.expand(channels, 1, 1).flatten().repeat(width) for each in (self.mean, self.std))
        rows = floats.permute(0, 2, 3, 1).view(count * height, width * channels)
        rows.div_(255).sub_(mean).div_(std)
        return floats


def channels_last(images: Tensor) -> Tensor:
    """Return images (images, channels, height, width) in the order in memory that networks are kept in."""
    return images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images


def as_index(target: Tensor) -> Tensor:
    """Return a target whose whole numbers are as large as an index is."""
    is_whole = not (target.is_floating_point() or target.is_complex() or target.dtype == torch.bool)
    return target.long() if is_whole else target


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
    mean, std = (
        torch.tensor(values, device=device).view(-1, 1, 1)
        for values in normalisation(data.mean, data.std, of_boxes=task.of_boxes)
    )
    enlarges = 1 if data.is_own else task.enlarges
    ignored = task.ignored if data.name == "image-masks" else None
    every = torch.arange(len(source))
    return Images(source, every, mean, std, data.augment, device, model.classes, enlarges, ignored)
