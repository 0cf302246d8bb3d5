"""Read the Penn-Fudan pedestrians from their folder: PNGImages/NAME.png and PedMasks/NAME_mask.png."""

import os
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.io import ImageReadMode, decode_image
from torchvision.ops import masks_to_boxes

PERSON = 1
TESTED = 0.2
"""The share of the images, the last of a shuffled list, that is tested on."""


class PennFudan(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Images (3, height, width) of any size, and the `boxes` and `labels` of the pedestrians in each."""

    def __init__(self, part: str, path: str) -> None:
        root = Path(__file__).parent / Path(os.path.expandvars(path)).expanduser()
        images = sorted((root / "PNGImages").glob("*.png"))
        if not images:
            raise FileNotFoundError(f"no images in {root / 'PNGImages'}")
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).tolist()
        first = len(images) - round(TESTED * len(images))
        self.images = [images[place] for place in (order[first:] if part == "test" else order[:first])]
        self.masks, self.part = root / "PedMasks", part

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return an image and its pedestrians; training mirrors half of them."""
        path = self.images[index]
        image = decode_image(str(path), ImageReadMode.RGB)
        mask = decode_image(str(self.masks / f"{path.stem}_mask.png"), ImageReadMode.UNCHANGED)[0]
        numbers = mask.unique()
        boxes = masks_to_boxes(mask == numbers[numbers > 0].view(-1, 1, 1))
        boxes[:, 2:] += 1  # behind the last pixel
        if self.part == "train" and torch.rand(()) < 0.5:
            image = image.flip(2)
            boxes[:, [0, 2]] = image.shape[2] - boxes[:, [2, 0]]
        return image, {"boxes": boxes, "labels": torch.full((len(boxes),), PERSON)}


def pedestrians(part: str, path: str) -> PennFudan:
    """Return `train`, `plain` (the same images, not varied) or `test`."""
    return PennFudan(part, path)
