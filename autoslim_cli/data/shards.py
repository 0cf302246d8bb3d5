"""Read images and classes from tar shards as WebDataset writes them, at any place: nothing is unpacked.

A sample is the files of one name: `000123.jpg` and `000123.cls`, whose text is the class, counted from 0. What classes
are called stands in `classnames.txt` beside the shards, a name a line, if it is there. Where each image begins in its
shard is looked up once; so every process reads its part of every batch, and an order by seed and a training that goes
on in the middle of an epoch work as with files of their own.
"""

import hashlib
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from autoslim_cli.data.decode import decode
from autoslim_cli.data.folder import SUFFIXES, Names, Part
from autoslim_cli.errors import AutoslimError, UsageError

_LONGEST_CLASS = 32
"""Bytes of a `.cls` file: an integer."""


@dataclass(frozen=True)
class ImageShards:
    """Images in tar files: for each its name, its class, and where it lies.

    `labels` are classes (int64: images); `places` are the shard, the offset and the length in bytes (int64: images, 3).
    `left_out` says which samples are not read, if there are any.
    """

    shards: list[Path]
    names: Names
    labels: Tensor
    places: Tensor
    class_names: Sequence[str] = ()
    left_out: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def select(self, chosen: Tensor) -> "ImageShards":
        """Return some of the images by their places (int64: images)."""
        names = Names(self.names[place] for place in chosen.tolist())
        return replace(self, names=names, labels=self.labels[chosen], places=self.places[chosen])

    def image(self, place: int) -> Tensor:
        """Return an image, uint8 (1 or 3, rows, columns). Raises AutoslimError naming it if it is damaged."""
        shard, offset, length = self.places[place].tolist()
        path = self.shards[shard]
        try:
            with path.open("rb", buffering=0) as file:
                data = os.pread(file.fileno(), length, offset)
        except OSError as error:
            raise AutoslimError(f"{path} cannot be read ({error.strerror})") from None
        return decode(f"{path}, {self.names[place]}", data)

    def digest(self) -> str:
        """Return `sha256:...` of the images' names, lengths and classes."""
        hashed = hashlib.sha256()
        for name, length, label in zip(self.names, self.places[:, 2].tolist(), self.labels.tolist(), strict=True):
            hashed.update(f"{label}\t{name}\t{length}\n".encode(errors="surrogateescape"))
        return f"sha256:{hashed.hexdigest()}"


def list_shards(root: Path, part: Part) -> ImageShards:
    """List the images of one part of a directory of shards: train*.tar or train/*.tar; test or val likewise.

    Raises UsageError for a directory without shards, one that is compressed or damaged, or an image without a class.
    """
    shards = _shards(root, part)
    names, labels, places = list[str](), list[int](), list[tuple[int, int, int]]()
    unread = list[str]()
    for number, shard in enumerate(shards):
        for name, label, offset, length in _samples(shard, unread):
            names.append(name)
            labels.append(label)
            places.append((number, offset, length))
    if not names:
        raise UsageError(f"data.path: no images in {shards[0]} and its like")
    samples = f"{len(unread):,} of {len(names) + len(unread):,} samples"
    left_out = f"{root}: {samples} have no image that is read: {unread[0]}.*, for one" if unread else ""
    return ImageShards(shards, Names(names), torch.tensor(labels), torch.tensor(places), _class_names(root), left_out)


def _class_names(root: Path) -> list[str]:
    """Return what classes are called, if a file beside the shards says so."""
    path = root / "classnames.txt"
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeError) as error:
        raise UsageError(f"data.path: {path} cannot be read as class names, one a line ({error})") from None
    if "" in names:
        raise UsageError(f"data.path: {path} has no name in line {names.index('') + 1}, which is that of a class")
    return names


def _shards(root: Path, part: Part) -> list[Path]:
    """Return the shards of one part, in the order of their names."""
    for name in ("train",) if part == "train" else ("test", "val"):
        if found := sorted([*root.glob(f"{name}*.tar"), *root.glob(f"{name}/*.tar")]):
            return found
    wanted = "train*.tar or train/*.tar" if part == "train" else "test*.tar or val*.tar, or such a directory"
    raise UsageError(f"data.path: {root} has no {wanted}; shards are tar files that are not compressed")


def _samples(shard: Path, unread: list[str]) -> Iterator[tuple[str, int, int, int]]:
    """Yield each image's name, class, offset and length, in the order of the shard.

    `unread` takes the names of samples without an image that is read. A sample's files share what stands before the
    first dot: `photo.1.jpg` is no image of `photo`.
    """
    images: dict[str, tuple[str, int, int]] = {}
    classes: dict[str, int] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                directory, _, file = member.name.rpartition("/")
                stem, _, suffix = file.partition(".")
                key, suffix = f"{directory}/{stem}", f".{suffix.lower()}"
                if not member.isfile():
                    continue
                if suffix == ".cls":
                    classes[key] = _class(shard, tar, member)
                elif suffix in SUFFIXES:
                    images[key] = member.name, member.offset_data, member.size
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UsageError(f"data.path: {shard} cannot be read as a tar file that is not compressed ({error})") from None
    unread += [key.lstrip("/") for key in classes if key not in images]
    for key, (name, offset, length) in images.items():
        if key not in classes:
            raise UsageError(f"data.path: {shard}: {name} has no class beside it, {key.lstrip('/')}.cls")
        yield name, classes[key], offset, length


def _class(shard: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> int:
    """Return the class in a `.cls` file. Raises UsageError if it has none."""
    file = tar.extractfile(member)
    text = file.read(_LONGEST_CLASS).decode(errors="replace").strip() if file else ""
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise UsageError(f"data.path: {shard}: {member.name} is no class, a number counted from 0: {text!r}")
    return int(text)
