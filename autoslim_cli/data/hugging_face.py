"""Read images and classes from a data set of Hugging Face's `datasets`: from its hub, or a directory."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autoslim_cli.data.decode import decode
from autoslim_cli.data.folder import Part
from autoslim_cli.errors import AutoslimError, UsageError, install

OWN = ("image", "label", "train", "test")
"""Of data.args, what names columns and splits; all else is load_dataset's."""
SAMPLED = 64
"""Images that a digest reads."""
WHOLE = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
"""Columns of numbers that may be classes, counted from 0."""
_REFUSED = {
    "streaming": "a training reads images in any order; without it they are downloaded once",
    "split": "both parts are wanted: name their splits as data.args.train and data.args.test",
}
_TESTS = ("test", "validation", "val", "valid")


class HubImages:
    """The images of one split, and their classes (int64: images)."""

    def __init__(self, name: str, table: Any, image: str, label: str, chosen: Tensor) -> None:
        self.name, self.table, self.column, self.label, self.chosen = name, table, image, label, chosen.tolist()
        labels = [-1 if one is None else one for one in table[label][:]]  # below zero: of no class
        self.labels = torch.tensor(labels, dtype=torch.int64)[chosen]
        self.class_names: list[str] = getattr(table.features[label], "names", [])  # whole numbers have none

    def __len__(self) -> int:
        return len(self.chosen)

    def select(self, chosen: Tensor) -> "HubImages":
        """Return some of the images by their places (int64: images)."""
        return HubImages(self.name, self.table, self.column, self.label, torch.tensor(self.chosen)[chosen])

    def image(self, place: int) -> Tensor:
        """Return an image, uint8 (1 or 3, rows, columns). Raises AutoslimError naming it if it is damaged."""
        return decode(f"{self.name}, image {self.chosen[place]}", self._bytes(place))

    def digest(self) -> str:
        """Return `sha256:...` of all classes, and of some images."""
        hashed = hashlib.sha256(repr(self.labels.tolist()).encode())
        for place in sorted({round(n * (len(self) - 1) / (SAMPLED - 1)) for n in range(SAMPLED)}):
            hashed.update(self._bytes(place))
        return f"sha256:{hashed.hexdigest()}"

    def _bytes(self, place: int) -> bytes:
        """Return an image as its file has it."""
        found = self.table[self.chosen[place]][self.column]
        if found is None or (found["bytes"] is None and not found["path"]):
            raise AutoslimError(f"{self.name}: row {self.chosen[place]} has no image: leave it out of the data set")
        if found["bytes"] is not None:
            return bytes(found["bytes"])
        try:
            return Path(found["path"]).read_bytes()
        except OSError as error:
            raise AutoslimError(f"{found['path']} cannot be read ({error.strerror})") from None


def list_hub(path: str | None, args: dict[str, Any], part: Part, directory: Path) -> HubImages:
    """List one part of a data set: `path` is a name on the hub, or a directory, by itself or relative to the recipe.

    Raises UsageError where the package is not installed, the data set is not found, or it is not clear which columns
    and splits are meant.
    """
    try:
        import datasets
    except ImportError:
        raise UsageError(f"data.name: hugging-face needs another package; {install('hugging-face')}") from None
    if path is None:
        raise UsageError("data.path: hugging-face wants the name of a data set on the hub, or a directory")
    _refuse_args(args)
    path = os.path.expandvars(path)
    local = directory / Path(path).expanduser()
    given = {name: value for name, value in args.items() if name not in OWN}
    try:
        if (local / "dataset_dict.json").is_file():
            found = datasets.load_from_disk(str(local))
        else:
            found = datasets.load_dataset(str(local) if local.is_dir() else path, **given)
    except Exception as error:  # whatever the hub, the network or a damaged file makes the library raise
        reason = " ".join(str(error).split())
        raise UsageError(f"data.path: {path} is no data set of images that `datasets` can load ({reason})") from None
    if not isinstance(found, datasets.DatasetDict):
        raise UsageError(f"data.path: {path} has no splits, as train and test are")
    split = _split(found, args, part)
    table = found[split]
    kinds = {name: feature for name, feature in table.features.items() if isinstance(feature, datasets.Value)}
    numbers = [name for name, feature in kinds.items() if feature.dtype in WHOLE]
    image = _column(table, args, "image", datasets.Image)
    label = _column(table, args, "label", datasets.ClassLabel, numbers)
    table = table.cast_column(image, datasets.Image(decode=False)).select_columns([image, label])
    return HubImages(f"{path} ({split})", table, image, label, torch.arange(len(table)))


def _refuse_args(args: dict[str, Any]) -> None:
    """Raise UsageError for arguments that give no splits, or no images at any place of one, or names that are none."""
    for name, why in _REFUSED.items():
        if args.get(name):
            raise UsageError(f"data.args.{name}: {why}")
    for name in OWN:
        if not isinstance(args.get(name, ""), str):
            raise UsageError(f"data.args.{name}: {args[name]!r} is no name")


def _split(splits: Mapping[str, Any], args: dict[str, Any], part: Part) -> str:
    """Return the name of a part's split. Raises UsageError if there is none."""
    wanted: Sequence[str] = (args[part],) if part in args else ("train",) if part == "train" else _TESTS
    for name in wanted:
        if name in splits:
            return name
    raise UsageError(f"data.args.{part}: no split {' or '.join(map(str, wanted))}; there are {', '.join(splits)}")


def _column(table: Any, args: dict[str, Any], what: str, kind: type, others: Sequence[str] = ()) -> str:
    """Return the column of images, or of classes: the only one, or the one that is named.

    One of the `others`, of whole numbers that may be anything, has to be named. Raises UsageError if it is not clear.
    """
    there = [name for name, feature in table.features.items() if isinstance(feature, kind)]
    wanted = [args[what]] if what in args else there
    if len(wanted) != 1 or wanted[0] not in (*there, *others):
        named = f", or, by its name, of whole numbers: {', '.join(others)}" if others else ""
        raise UsageError(
            f"data.args.{what}: expected is one of the columns of {kind.__name__}s, {', '.join(there) or 'none'}{named}"
        )
    return str(wanted[0])
