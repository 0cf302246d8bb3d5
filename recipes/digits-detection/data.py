"""Compose scenes of the embedded handwritten digits among clutter, and say in which boxes the digits are."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from autoslim_cli.data.opening import DIGITS_FILE

SIZE, SIDE, MOST = 64, 16, 4
DIGIT = 1  # 0 is the background
OTHER_WRITERS = 360
"""The last digits are of writers whom training does not see."""

Objects = dict[str, Tensor]


class Scenes(Dataset[tuple[Tensor, Objects]]):
    """Images (1, 64, 64) of one to four digits, and as much clutter: digits whose pixels were shuffled.

    Targets are those of torchvision's detectors: `boxes` (digits, 4: left, top, right, bottom), `labels` (digits,).
    """

    def __init__(self, part: str, count: int) -> None:
        with np.load(DIGITS_FILE) as arrays:
            some = slice(-OTHER_WRITERS, None) if part == "test" else slice(None, -OTHER_WRITERS)
            self.digits = arrays["images"][some]
        self.part, self.count = part, count // 4 if part == "test" else count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Objects]:
        """Return a scene, of equal content whenever it is asked for; training mirrors half of them."""
        draw = np.random.default_rng([self.part == "test", index])
        image, boxes = draw.integers(0, 64, (SIZE, SIZE), dtype=np.uint8), []
        corners = draw.permutation((SIZE // SIDE) ** 2)[: 2 * draw.integers(1, MOST + 1)]
        for number, corner in enumerate(corners):
            pixels = self.digits[draw.integers(len(self.digits))]
            if number % 2:
                pixels = draw.permutation(pixels.ravel()).reshape(pixels.shape)
            pixels = pixels.repeat(2, 0).repeat(2, 1)
            top, left = (int(SIDE * place + draw.integers(-4, 5)) for place in divmod(int(corner), SIZE // SIDE))
            top, left = (min(max(0, place), SIZE - SIDE) for place in (top, left))
            place, ink = np.s_[top : top + SIDE, left : left + SIDE], pixels > 64
            image[place][ink] = pixels[ink]
            if number % 2 == 0:
                rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
                boxes.append([left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1])
        scene, found = torch.from_numpy(image).unsqueeze(0), torch.tensor(boxes, dtype=torch.float32)
        if self.part == "train" and torch.rand(()) < 0.5:
            scene, found = (
                scene.flip(2),
                torch.stack([SIZE - found[:, 2], found[:, 1], SIZE - found[:, 0], found[:, 3]], 1),
            )
        return scene, {"boxes": found, "labels": torch.full((len(found),), DIGIT)}


def scenes(part: str, count: int) -> Scenes:
    """Return so many scenes: `train`, `plain` (the same, not varied) or `test`, of which there is a quarter."""
    return Scenes(part, count)
