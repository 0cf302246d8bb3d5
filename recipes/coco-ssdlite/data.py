"""Read COCO with torchvision's own classes: train2017/, val2017/ and annotations/instances_*2017.json."""

import os
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import CocoDetection
from torchvision.transforms.v2.functional import pil_to_tensor


class Coco(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Images (3, height, width) of any size, and the `boxes`, `labels` (1 to 90) and `iscrowd` of their objects.

    `train` holds single objects alone, and mirrors half of the images; images without any are left out of it.
    """

    def __init__(self, part: str, path: str) -> None:
        root = Path(__file__).parent / Path(os.path.expandvars(path)).expanduser()
        split = "val2017" if part == "test" else "train2017"
        self.images = CocoDetection(root / split, str(root / "annotations" / f"instances_{split}.json"))
        self.part = part
        objects = self.images.coco.imgToAnns
        self.ids = [place for place, image in enumerate(self.images.ids) if part == "test" or _single(objects[image])]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return an image and its objects."""
        picture, annotations = self.images[self.ids[index]]
        image = pil_to_tensor(picture)
        height, width = image.shape[1:]
        kept = annotations if self.part == "test" else _single(annotations)
        corners = torch.tensor([one["bbox"] for one in kept], dtype=torch.float32).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        corners = corners.clamp(min=0).minimum(torch.tensor([width, height, width, height]))
        labels, crowds = (
            torch.tensor([one[key] for one in kept], dtype=torch.int64) for key in ("category_id", "iscrowd")
        )
        there = (corners[:, 2:] > corners[:, :2]).all(1)
        if self.part == "train" and torch.rand(()) < 0.5:
            image = image.flip(2)
            corners[:, [0, 2]] = width - corners[:, [2, 0]]
        return image, {"boxes": corners[there], "labels": labels[there], "iscrowd": crowds[there]}


def _single(annotations: list[dict[str, object]]) -> list[dict[str, object]]:
    """Return the objects that are one each."""
    return [one for one in annotations if not one["iscrowd"]]


def coco(part: str, path: str) -> Coco:
    """Return `train`, `plain` (the same images, not varied) or `test` (val2017)."""
    return Coco(part, path)
