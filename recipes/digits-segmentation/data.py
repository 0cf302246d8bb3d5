"""Compose scenes of the embedded handwritten digits among clutter, and masks that say which pixel is of what."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from autoslim_cli.data.opening import DIGITS_FILE

SIZE, THINGS, SIDE = 24, 4, 8
BACKGROUND, DIGIT, CLUTTER = range(3)
OTHER_WRITERS = 360
"""The last digits are of writers whom training does not see."""


class Scenes(Dataset[tuple[Tensor, Tensor]]):
    """Images (1, 24, 24) of digits, and of digits whose pixels were shuffled: clutter; masks (24, 24) of classes."""

    def __init__(self, part: str, count: int) -> None:
        with np.load(DIGITS_FILE) as arrays:
            some = slice(-OTHER_WRITERS, None) if part == "test" else slice(None, -OTHER_WRITERS)
            self.digits = arrays["images"][some]
        self.part, self.count = part, count // 4 if part == "test" else count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return a scene, of equal content whenever it is asked for; training varies its brightness."""
        draw = np.random.default_rng([self.part == "test", index])
        image = draw.integers(0, 64, (SIZE, SIZE), dtype=np.uint8)
        mask = np.full((SIZE, SIZE), BACKGROUND, dtype=np.uint8)
        for number, which in enumerate(draw.integers(len(self.digits), size=THINGS)):
            top, left = draw.integers(SIZE - SIDE + 1, size=2)
            place, kind = np.s_[top : top + SIDE, left : left + SIDE], (DIGIT, CLUTTER)[number % 2]
            pixels = self.digits[which]
            if kind == CLUTTER:
                pixels = draw.permutation(pixels.ravel()).reshape(SIDE, SIDE)
            ink = pixels > 64
            image[place][ink] = pixels[ink]
            mask[place][ink] = kind
        scene = torch.from_numpy(image).unsqueeze(0)
        if self.part == "train":
            scene = (scene * (0.7 + 0.3 * torch.rand(()))).to(torch.uint8)
        return scene, torch.from_numpy(mask)


def scenes(part: str, count: int) -> Scenes:
    """Return so many scenes: `train`, `plain` (the same, not varied) or `test`, of which there is a quarter."""
    return Scenes(part, count)
