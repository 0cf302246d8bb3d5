"""Build super-resolution networks after EDSR."""

import torch.nn.functional as F
from torch import Tensor, nn

SCALES = (2, 3, 4, 8)
MOST_BLOCKS = 256
"""More than any published network of this kind has."""


class Block(nn.Module):
    """Two convolutions around a ReLU, added to their input (Lim et al. 2017, figure 2c): no BN."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, width, height, width) to the same shape."""
        y: Tensor = x + self.conv2(F.relu(self.conv1(x)))
        return y


class EDSR(nn.Module):
    """Residual blocks at the small image's size, then pixel shuffles (Lim et al. 2017, figure 3).

    What it adds to EDSR: the bicubically enlarged image is added to the output (as VDSR does), and the last convolution
    starts near zero, so that a short training starts from there.
    """

    def __init__(self, scale: int, blocks: int, width: int, in_channels: int) -> None:
        super().__init__()
        refuse_other(scale, blocks)
        self.scale = scale
        self.head = nn.Conv2d(in_channels, width, 3, padding=1)
        self.body = nn.Sequential(*(Block(width) for _ in range(blocks)), nn.Conv2d(width, width, 3, padding=1))
        factors = (scale,) if scale == 3 else (2,) * (scale.bit_length() - 1)
        self.up = nn.Sequential(
            *(
                layer
                for factor in factors
                for layer in (nn.Conv2d(width, width * factor**2, 3, padding=1), nn.PixelShuffle(factor))
            )
        )
        self.tail = nn.Conv2d(width, in_channels, 3, padding=1)
        nn.init.normal_(self.tail.weight, std=1e-3)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Map images (batch, channels, height, width) to (batch, channels, height * scale, width * scale)."""
        x = self.head(images)
        x = self.tail(self.up(x + self.body(x)))
        large: Tensor = x + F.interpolate(images, scale_factor=self.scale, mode="bicubic", align_corners=False)
        return large


def refuse_other(scale: int, blocks: int) -> None:
    """Raise ValueError for a scale or a number of blocks that no such network has."""
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(map(str, SCALES))}, not {scale}")
    if not 1 <= blocks <= MOST_BLOCKS:
        raise ValueError(f"blocks must be 1 to {MOST_BLOCKS}, not {blocks}")


def edsr(scale: int = 2, blocks: int = 8, width: int = 32, in_channels: int = 3) -> nn.Module:
    """Build a super-resolution network of residual blocks without BN: EDSR's have 32 of width 256, or 16 of 64."""
    return EDSR(scale, blocks, width, in_channels)
