"""Hand out items of a data set of the user's own: `./data.py:factory`."""

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from autoslim_cli.data.batch import Batch, Each, Tree, mapped, shapes, tensors
from autoslim_cli.data.folder import Part
from autoslim_cli.data.sources import Drawn
from autoslim_cli.data.workers import Collate, Workers
from autoslim_cli.errors import AutoslimError, UsageError, is_out_of_memory
from autoslim_cli.own_code import code_digest, load_factory
from autoslim_cli.recipe.schema import AugmentSettings, DataSettings
from autoslim_cli.seeds import drawing_by, seed_from

SAMPLED = 16
"""Items that a digest looks at: reading all of them could take hours."""


@dataclass(frozen=True)
class OwnItems:
    """What the user's factory gave for one part: its items as they are, and varied at random.

    Another process is sent what they were made of, and makes them anew: they may hold what cannot be sent.
    """

    data: DataSettings
    part: Part
    directory: Path
    plain: Any
    varied: Any

    @classmethod
    def made(cls, data: DataSettings, part: Part, directory: Path) -> "OwnItems":
        """Call the factory with `train` and `plain`, or `test`. Raises UsageError naming data.name if it fails."""
        factory = load_factory(data.name, directory, "data.name")
        plain = _called(factory, "plain" if part == "train" else "test", data)
        return cls(data, part, directory, plain, _called(factory, "train", data) if part == "train" else plain)

    def __reduce__(self) -> tuple[Callable[..., "OwnItems"], tuple[DataSettings, Part, Path]]:
        """Leave the items out."""
        return _made_anew, (self.data, self.part, self.directory)


class _Failing:
    """Items of which each says why the factory failed: a process that fails while it starts could not say it."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __getitem__(self, _: int) -> object:
        raise AutoslimError(self.reason)


def _made_anew(data: DataSettings, part: Part, directory: Path) -> OwnItems:
    """Return what the factory gives in another process."""
    try:
        return OwnItems.made(data, part, directory)
    except AutoslimError as error:
        failing = _Failing(str(error))
        return OwnItems(data, part, directory, failing, failing)


def _called(factory: Callable[..., Any], which: str, data: DataSettings) -> Any:
    """Return what the user's factory gives. Raises UsageError naming data.name if that is no data set."""
    try:
        with _drawing(0):  # of what is drawn once, as a split, all processes and commands draw the same
            items = factory(which, **data.args)
        count = len(items)
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0]
        raise UsageError(
            f"data.name: {data.name} gives no data set for {which!r}: {type(error).__name__}: {said}; it is called "
            "with train, plain or test, and returns what has a length and items"
        ) from None
    if not count:
        raise UsageError(f"data.name: {data.name} has no items for {which!r}")
    return items


class OwnSource(Dataset[Any]):
    """A map-style data set of (input, target) pairs, and another of the same items that varies them at random.

    Inputs and targets are tensors, or tuples and dictionaries of them. What an item draws from torch, numpy or Python
    depends on the recipe's seed, the step and its place in the batch alone. `chosen` are the items in use; `code` is
    the digest of what made them; `collate` makes batches of them.
    """

    def __init__(self, items: OwnItems, *, code: str, chosen: Tensor, collate: Collate = default_collate) -> None:
        self.items, self.name, self.code, self.collate = items, items.data.name, code, collate
        self.chosen = chosen.tolist()
        self.workers = Workers(copy(self), items.data.workers, collate)

    def __len__(self) -> int:
        return len(self.chosen)

    @cached_property
    def digest(self) -> str:
        """Return `sha256:...`: the data set's own `digest` if it has one, or of its code and some of its items."""
        items = self.items.plain
        if isinstance(given := getattr(items, "digest", None), str):
            return f"sha256:{hashlib.sha256(given.encode()).hexdigest()}"
        count, part = len(items), self.items.part
        hashed = hashlib.sha256(repr((self.code, sorted(self.items.data.args.items()), count, part)).encode())
        for place in sorted({round(n * (count - 1) / (SAMPLED - 1)) for n in range(SAMPLED)}):
            hashed.update(held := self._bytes(place))
        if held != self._bytes(place):
            raise UsageError(
                f"data.name: item {place} of {self.name} differs from one reading to the next: those of "
                f"{'plain' if part == 'train' else part} must not vary at random"
            )
        return f"sha256:{hashed.hexdigest()}"

    @property
    def class_names(self) -> Sequence[str]:
        """Return what the data set says in `classes`, as torchvision's do, if that is a list of names."""
        said = getattr(self.items.plain, "classes", ())
        return said if isinstance(said, list | tuple) and all(isinstance(name, str) for name in said) else ()

    @cached_property
    def of_pixels(self) -> bool:
        """Tell whether inputs are uint8, and so are normalised: those of the first item."""
        inputs, _ = self.collate([self[0, None]])
        return all(tensor.dtype == torch.uint8 for tensor in tensors(inputs))

    def fitted(self, batches: Iterable[Tensor]) -> Iterator[Batch]:
        """Yield batches of items as they are."""
        return self._load([(index, None) for index in indices.tolist()] for indices in batches)

    def cropped(self, batches: Iterable[Drawn], augment: AugmentSettings, places: Sequence[int]) -> Iterator[Batch]:
        """Yield batches of items that the data set varies."""
        del augment
        return self._load(
            [(index, seed_from(seed, place)) for place, index in zip(places, indices.tolist(), strict=True)]
            for indices, seed in batches
        )

    def _load(self, keys: Iterable[list[tuple[int, int | None]]]) -> Iterator[Batch]:
        for inputs, targets in self.workers.load(keys):
            yield mapped(inputs, as_plain), mapped(targets, as_plain)

    def __getitem__(self, key: tuple[int, int | None]) -> Any:
        """Return an item, varied by a seed if there is one. Raises AutoslimError if the data set fails."""
        index, seed = self.chosen[key[0]], key[1]
        if seed is None:
            return self._item(self.items.plain, index)
        with _drawing(seed):
            return self._item(self.items.varied, index)

    def _bytes(self, place: int) -> bytes:
        """Return what an item of the whole data set holds, not varied. Raises AutoslimError if the data set fails."""
        item = self.collate([self._item(self.items.plain, place)])
        plain = [as_plain(tensor) for tensor in tensors(item)]
        return b"".join(one.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for one in plain)

    def _item(self, items: Any, index: int) -> Any:
        """Return an item of the whole data set. Raises AutoslimError if that fails."""
        try:
            return _pair(items[index])
        except AutoslimError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            said = (str(error).strip().splitlines() or [""])[0]
            raise AutoslimError(f"data.name: item {index} of {self.name}: {type(error).__name__}: {said}") from None


def open_own(
    part: Part,
    data: DataSettings,
    inputs: Sequence[tuple[int, ...]],
    chosen: Callable[[int], Tensor],
    directory: Path,
    *,
    of_boxes: bool = False,
) -> OwnSource:
    """Open one part of the user's data set; `inputs` are the shapes that the network takes.

    The factory is called with `train`, `plain` (the images of `train`, never varied) or `test`, and `data.args`.
    `chosen` gives the items in use of so many. `of_boxes`: items are those of torchvision's detectors, images of any
    size and dictionaries of any number of boxes. Raises UsageError naming data.name for what does not do.
    """
    items = OwnItems.made(data, part, directory)
    code = code_digest(data.name, directory)
    count = len(items.plain)
    if len(items.varied) != count:
        raise UsageError(
            f"data.name: {data.name} has {len(items.varied)} items for train and {count} for plain: they must be the "
            "same, those of plain not varied at random"
        )
    collate = images_and_boxes if of_boxes else default_collate
    source = OwnSource(items, code=code, chosen=chosen(count), collate=collate)
    _check(source, inputs, any_size=of_boxes)
    return source


def images_and_boxes(items: Sequence[tuple[Any, Any]]) -> tuple[Tree, Each]:
    """Return one batch of items as torchvision's detectors take them: an image, and a dictionary of its objects.

    Images of one size are one tensor. Raises TypeError for an item that is anything else.
    """
    images = [image for image, _ in items]
    for image, objects in items:
        if not isinstance(image, Tensor) or image.dim() != 3 or not isinstance(objects, Mapping):
            raise TypeError(
                "in detection an item is an image (channels, height, width) and a dictionary of boxes (objects, 4) and "
                f"labels (objects,), not {shapes(image)} and {shapes(objects)}"
            )
    targets = Each({str(name): torch.as_tensor(one) for name, one in objects.items()} for _, objects in items)
    return (torch.stack(images) if len({image.shape for image in images}) == 1 else Each(images)), targets


def _check(source: OwnSource, inputs: Sequence[tuple[int, ...]], *, any_size: bool) -> None:
    """Raise UsageError if the first item is not an input of the network's shapes, and a target."""
    try:
        given, target = source.collate([source[0, None]])
        found = [tuple(tensor.shape[1:]) for tensor in tensors(given)]
        tensors(target)
    except (AutoslimError, TypeError, ValueError) as error:
        raise UsageError(str(error) if "data.name" in str(error) else f"data.name: {source.name}: {error}") from None
    if any_size:
        found = [(*shape[:1], *inputs[0][1:]) for shape in found]
    if found != list(inputs):
        there = " and ".join(map(str, found))
        expected = " and ".join(str(tuple(shape)) for shape in inputs)
        raise UsageError(
            f"data.name: {source.name} gives inputs of shape {there}, and the model takes {expected}: "
            "(channels, height, width), as model.input says"
        )
    image = tensors(given)[0]
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise UsageError(
            f"data.name: {source.name} gives images of {image.dtype}: they are uint8, which the recipe's mean and std "
            "normalise, or floats, which go into the network as they are (image.float())"
        )


def _pair(item: object) -> tuple[object, object]:
    """Return an item if it is an input and a target."""
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise AutoslimError(f"an item is a pair of an input and a target, not {type(item).__name__}")
    return item[0], item[1]


def as_plain(tensor: Tensor) -> Tensor:
    """Return an ordinary tensor of what a data set gives, floats in single precision: Python's are double."""
    return tensor.as_subclass(Tensor).float() if tensor.is_floating_point() else tensor.as_subclass(Tensor)


@contextmanager
def _drawing(seed: int) -> Iterator[None]:
    """Let what torch, numpy and Python draw depend on a seed, and leave them as they were."""
    before = random.getstate(), np.random.get_state()
    with drawing_by(seed):
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
