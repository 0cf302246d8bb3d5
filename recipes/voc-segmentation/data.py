"""Read Pascal VOC's segmentation with torchvision's own class: VOCdevkit/VOC2012/ with images, masks and lists."""

import os
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset
from torchvision.datasets import VOCSegmentation, wrap_dataset_for_transforms_v2
from torchvision.transforms import InterpolationMode, v2
from torchvision.tv_tensors import Mask

VOID = 255


class Voc(Dataset[tuple[Tensor, Tensor]]):
    """Images (3, size, size) and masks (size, size) of 21 classes; 255 does not count: rims, and what is padded."""

    def __init__(self, part: str, path: str, size: int, download: bool) -> None:
        root = Path(__file__).parent / Path(os.path.expandvars(path)).expanduser()
        varied = [
            v2.RandomResize(size // 2, 2 * size),
            v2.RandomCrop(size, pad_if_needed=True, fill={Mask: VOID, "others": 0}),
            v2.RandomHorizontalFlip(),
        ]
        fitted = [v2.Resize(size, interpolation=InterpolationMode.BILINEAR), v2.CenterCrop(size)]
        steps = [v2.PILToTensor(), *(varied if part == "train" else fitted)]
        images = VOCSegmentation(
            root,
            image_set="val" if part == "test" else "train",
            download=download,
            transforms=v2.Compose(steps),
        )
        self.images = wrap_dataset_for_transforms_v2(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return an image and its mask."""
        image, mask = self.images[index]
        return image, mask.squeeze(0)


def voc(part: str, path: str, size: int, download: bool = False) -> Voc:
    """Return `train`, `plain` (the same images, not varied) or `test` (val), cropped at the centre."""
    return Voc(part, path, size, download)
