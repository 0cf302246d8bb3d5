"""Compose scenes of the embedded handwritten digits, and say which digits are in each."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from autoslim_cli.data.opening import DIGITS_FILE

SIZE, SIDE, LABELS = 16, 8, 5
CORNERS = ((0, 0), (0, SIZE - SIDE), (SIZE - SIDE, 0), (SIZE - SIDE, SIZE - SIDE))
OTHER_WRITERS = 360
"""The last digits are of writers whom training does not see."""


class Scenes(Dataset[tuple[Tensor, Tensor]]):
    """Images (1, 16, 16) with one to three digits, each in a corner, and five labels of 0 or 1: which of 0 to 4."""

    def __init__(self, part: str, count: int) -> None:
        with np.load(DIGITS_FILE) as arrays:
            some = slice(-OTHER_WRITERS, None) if part == "test" else slice(None, -OTHER_WRITERS)
            digits, names = arrays["images"][some], arrays["labels"][some]
        self.digits, self.names = digits[names < LABELS], names[names < LABELS]
        self.part, self.count = part, count // 4 if part == "test" else count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return a scene, of equal content whenever it is asked for; training moves it by a pixel."""
        draw = np.random.default_rng([self.part == "test", index])
        image, labels = np.zeros((SIZE, SIZE), dtype=np.uint8), torch.zeros(LABELS)
        for corner in draw.permutation(4)[: draw.integers(1, 4)]:
            which, (top, left) = draw.integers(len(self.digits)), CORNERS[corner]
            image[top : top + SIDE, left : left + SIDE] = self.digits[which]
            labels[int(self.names[which])] = 1
        pixels = torch.from_numpy(image).unsqueeze(0)
        if self.part == "train":
            pixels = pixels.roll(torch.randint(-1, 2, (2,)).tolist(), (1, 2))
        return pixels, labels


def scenes(part: str, count: int) -> Scenes:
    """Return so many scenes: `train`, `plain` (the same, not varied) or `test`, of which there is a quarter."""
    return Scenes(part, count)
