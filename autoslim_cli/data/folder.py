"""List the images of a directory: train/<class>/, and test/<class>/ or val/<class>/."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from autoslim_cli.errors import UsageError

Part = Literal["train", "test"]

_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class ImageFiles:
    """Files of one part of an image folder: names relative to its directory, and labels (int64: images)."""

    directory: Path
    names: list[str]
    labels: Tensor


def list_images(root: Path, part: Part) -> ImageFiles:
    """List one part of an image folder: by class, then by name.

    Raises UsageError for a missing directory, a class without images, or one that the training part lacks.
    """
    directory = _part_directory(root, part)
    classes = _classes(_part_directory(root, "train"))
    if strange := sorted(set(_classes(directory)) - set(classes)):
        raise UsageError(f"data.path: {directory / strange[0]} is a class that {root / 'train'} does not have")
    names: list[str] = []
    counts = []
    for name in classes:
        found = _image_names(directory, name)
        if part == "train" and not found:
            raise UsageError(f"data.path: no images in {directory / name}; remove the directory if it is no class")
        names += found
        counts.append(len(found))
    if not names:
        raise UsageError(f"data.path: no images in the class directories of {directory}")
    return ImageFiles(directory, names, torch.arange(len(classes)).repeat_interleave(torch.tensor(counts)))


def _part_directory(root: Path, part: Part) -> Path:
    """Return the directory of one part of an image folder."""
    names = ("train",) if part == "train" else ("test", "val")
    directory = next((root / name for name in names if (root / name).is_dir()), None)
    if directory is None:
        raise UsageError(f"data.path: {root} has no directory {' or '.join(names)}/ with one directory per class")
    return directory


def _classes(directory: Path) -> list[str]:
    """Return the classes of a directory: the training part's order gives the labels."""
    return sorted(entry.name for entry in os.scandir(directory) if entry.is_dir() and not entry.name.startswith("."))


def _image_names(directory: Path, name: str) -> list[str]:
    """Return the images anywhere below one class's directory, sorted; as strings, since there may be a million."""
    names = []
    for place, _, files in os.walk(directory / name):
        below = os.path.relpath(place, directory)
        names += [f"{below}/{file}" for file in files if file.lower().endswith(_SUFFIXES) and file[0] != "."]
    return sorted(names)
