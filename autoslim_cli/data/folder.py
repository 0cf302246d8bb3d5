"""List the images of a directory: its train/, and its test/ or val/, and what belongs to each image."""

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from torch import Tensor

from autoslim_cli.data.decode import decode, decode_mask
from autoslim_cli.errors import AutoslimError, UsageError
from autoslim_cli.near import listed

Part = Literal["train", "test"]

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"),
    ".gif",  # of several frames the first
)
"""How images are called that Pillow reads everywhere; what else it may read depends on how it was built."""

NOTES = (".txt", ".csv", ".json", ".xml", ".md", ".yaml", ".yml", ".html", ".db", ".ini")
"""How files are called that lie beside images, and nobody takes for one."""

NO_SUFFIX = "without a suffix"


class Names(Sequence[str]):
    """The names of many files in one piece of memory.

    A list of a million strings takes 100 MB, and every worker that reads from it comes to have a copy of its own: to
    look at an object is to write its count of references.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        encoded = [os.fsencode(name) for name in names]
        self.ends = np.cumsum([0, *map(len, encoded)])
        self.text = b"".join(encoded)

    def __len__(self) -> int:
        return len(self.ends) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> "Names": ...

    def __getitem__(self, place: int | slice) -> "str | Names":
        """Return a name, or some of them."""
        if isinstance(place, slice):
            return Names(self[one] for one in range(*place.indices(len(self))))
        place = range(len(self))[place]
        return os.fsdecode(self.text[self.ends[place] : self.ends[place + 1]])


@dataclass(frozen=True)
class ImageFiles:
    """Files of one part of an image folder: names relative to its directory, and what belongs to each.

    `labels` are classes (int64: images), or 0 or 1 for each label (uint8: images, labels), and `class_names` what these
    are called; `masks` are further files. `others` counts by suffix the files that are not read.
    """

    directory: Path
    names: Sequence[str]
    labels: Tensor
    masks: Sequence[str] = ()
    class_names: Sequence[str] = ()
    others: Mapping[str, int] = field(default_factory=dict)

    @property
    def left_out(self) -> str:
        """Say which files are not read that may be meant as images: nothing if there are none."""
        strange = Counter({suffix: count for suffix, count in self.others.items() if suffix not in NOTES})
        if not strange:
            return ""
        files = "1 file of {} is" if strange.total() == 1 else f"{strange.total():,} files of {{}} are"
        return f"{files.format(self.directory)} not read as images: {_by_suffix(strange)}"

    def __len__(self) -> int:
        return len(self.names)

    def image(self, place: int) -> Tensor:
        """Return an image, uint8 (1 or 3, rows, columns). Raises AutoslimError naming the file if it is damaged."""
        return decode(self.directory / self.names[place])

    def mask(self, place: int) -> tuple[Tensor, Path]:
        """Return an image's mask, uint8 (rows, columns), and its file. Raises AutoslimError if it is damaged."""
        path = self.directory / self.masks[place]
        return decode_mask(path), path

    def digest(self) -> str:
        """Return `sha256:...` of the files' labels, names and sizes: reading all pixels would take hours.

        Raises AutoslimError for a file that has gone.
        """
        hashed = hashlib.sha256()
        masks = [(mask, "mask") for mask in self.masks]
        for name, label in (*zip(self.names, self.labels.tolist(), strict=True), *masks):
            try:
                size = (self.directory / name).stat().st_size
            except OSError as error:
                raise AutoslimError(f"{self.directory / name} cannot be read ({error.strerror})") from None
            hashed.update(f"{label}\t{name}\t{size}\n".encode(errors="surrogateescape"))
        return f"sha256:{hashed.hexdigest()}"

    def select(self, chosen: Tensor) -> "ImageFiles":
        """Return some of the files by their places (int64: images)."""
        names, masks = (Names(some[place] for place in chosen.tolist() if some) for some in (self.names, self.masks))
        return ImageFiles(self.directory, names, self.labels[chosen], masks, self.class_names, self.others)


def list_images(root: Path, part: Part) -> ImageFiles:
    """List one part of an image folder: by class, then by name. Labels are those of the training part's classes.

    Raises UsageError for a missing directory, a class without images, or one that the training part lacks.
    """
    directory = _part_directory(root, part)
    classes = _classes(_part_directory(root, "train"))
    if strange := sorted(set(_classes(directory)) - set(classes)):
        raise UsageError(f"data.path: {directory / strange[0]} is a class that {root / 'train'} does not have")
    names: list[str] = []
    counts, others = [], Counter[str]()
    for name in classes:
        found = _image_names(directory, name, unread := Counter[str]())
        if part == "train" and not found:
            raise UsageError(
                f"data.path: no images in {directory / name}{_only(unread)}; remove the directory if it is no class"
            )
        names += found
        others += unread
        counts.append(len(found))
    if not names:
        raise UsageError(f"data.path: no images in the class directories of {directory}{_only(others)}")
    labels = torch.arange(len(classes)).repeat_interleave(torch.tensor(counts))
    return ImageFiles(directory, names, labels, class_names=classes, others=others)


def list_unlabelled(root: Path, part: Part) -> ImageFiles:
    """List one part of a folder of images without classes: all below train/, and below test/ or val/."""
    directory = _part_directory(root, part, "images")
    names = _image_names(directory, ".", others := Counter[str]())
    if not names:
        raise UsageError(f"data.path: no images below {directory}{_only(others)}")
    return ImageFiles(directory, names, torch.zeros(len(names), dtype=torch.int64), others=others)


def list_masked(root: Path, part: Part) -> ImageFiles:
    """List one part of a folder of images and masks: train/images/NAME.jpg with train/masks/NAME.png, and so on.

    Raises UsageError for an image without a mask, or a missing directory.
    """
    directory = _part_directory(root, part, "images/ and masks/")
    for name in ("images", "masks"):
        if not (directory / name).is_dir():
            raise UsageError(f"data.path: {directory} has no directory {name}/; it holds images/ and masks/")
    names = _image_names(directory, "images", others := Counter[str]())
    if not names:
        raise UsageError(f"data.path: no images in {directory / 'images'}{_only(others)}")
    masks = {_stem(name): name for name in _image_names(directory, "masks", others)}
    if lonely := next((name for name in names if _stem(name) not in masks), None):
        raise UsageError(f"data.path: {directory / lonely} has no mask of the same name in {directory / 'masks'}")
    labels = torch.zeros(len(names), dtype=torch.int64)
    return ImageFiles(directory, names, labels, [masks[_stem(name)] for name in names], others=others)


def list_several(root: Path, part: Part) -> ImageFiles:
    """List one part of a folder of images with several labels each: train.csv, and test.csv or val.csv.

    Its first column is an image, relative to the folder; every other is a label, 0 or 1 for each image, under its name.
    Raises UsageError naming the line that is otherwise.
    """
    files = ("train.csv",) if part == "train" else ("test.csv", "val.csv")
    path = next((root / name for name in files if (root / name).is_file()), None)
    if path is None:
        raise UsageError(
            f"data.path: {root} has no {' or '.join(files)}, of lines IMAGE,0,1,... under a head of labels"
        )
    names, rows = list[str](), list[list[int]]()
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        lines = _lines(csv.reader(file), path)
        heads = next(lines, [])
        for number, line in enumerate(lines, 2):
            if len(line) != len(heads) or len(heads) < 2 or not set(line[1:]) <= {"0", "1"}:
                raise UsageError(f"data.path: {path}, line {number}: not an image and 0 or 1 for each of {heads[1:]}")
            names.append(line[0])
            rows.append([int(value) for value in line[1:]])
    if not names:
        raise UsageError(f"data.path: no images in {path}")
    return ImageFiles(root, names, torch.tensor(rows, dtype=torch.uint8), class_names=heads[1:])


def _lines(lines: Iterator[list[str]], path: Path) -> Iterator[list[str]]:
    """Yield the lines of a table. Raises UsageError where they cannot be told apart."""
    while True:
        try:
            line = next(lines, None)
        except csv.Error as error:  # a quote that is not closed takes the rest of the file for one value
            number = getattr(lines, "line_num", 0)
            raise UsageError(f"data.path: {path}, before line {number + 1}: {error}; is a quote not closed?") from None
        if line is None:
            return
        yield line


def _stem(name: str) -> str:
    """Return an image's name below images/ or masks/, without its suffix."""
    return str(Path(name.partition("/")[2]).with_suffix(""))


def _part_directory(root: Path, part: Part, holding: str = "one directory per class") -> Path:
    """Return the directory of one part of an image folder."""
    names = ("train",) if part == "train" else ("test", "val")
    directory = next((root / name for name in names if (root / name).is_dir()), None)
    if directory is None:
        raise UsageError(f"data.path: {root} has no directory {' or '.join(names)}/ with {holding}")
    return directory


def _classes(directory: Path) -> list[str]:
    """Return the classes of a directory: the training part's order gives the labels."""
    return sorted(entry.name for entry in os.scandir(directory) if entry.is_dir() and not entry.name.startswith("."))


def _by_suffix(counts: Counter[str]) -> str:
    """Write how many files there are of each suffix, the most first."""
    return listed([f"{suffix} ({count:,})" for suffix, count in counts.most_common()])


def _only(others: Counter[str]) -> str:
    """Say which files there are where there are no images: nothing if there are none."""
    return f", but files that are not read: {_by_suffix(others)}" if others else ""


def _walk(directory: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the directories anywhere below one, by links, too, and their files; none that is hidden, and none twice."""
    seen = set[str]()
    for place, below, files in os.walk(directory, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            below.clear()
            continue
        seen.add(real)
        shown = [name for name in below if name[0] != "."]
        below[:] = sorted(shown, key=lambda name: (os.path.islink(f"{place}/{name}"), name))  # noqa: PTH114
        yield place, files


def _image_names(directory: Path, name: str, others: Counter[str]) -> list[str]:
    """Return the images anywhere below a directory in this one, sorted; as strings, since there may be a million.

    Other files, but hidden ones, are counted in `others` by suffix.
    """
    names = []
    for place, files in _walk(directory / name):
        below = os.path.relpath(place, directory)
        below = "" if below == "." else f"{below}/"
        found = [file for file in files if file.lower().endswith(SUFFIXES) and file[0] != "."]
        names += [f"{below}{file}" for file in found]
        if len(found) < len(files):
            unread = (file for file in files if not file.lower().endswith(SUFFIXES) and file[0] != ".")
            others.update(os.path.splitext(file)[1].lower() or NO_SUFFIX for file in unread)  # noqa: PTH122  of many
    return sorted(names)
