"""Build a small U-Net: an encoder and a decoder with skips, for dense predictions."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEEPEST = 6
"""More halvings than images of usual sizes have."""


class UNet(nn.Module):
    """Halve the image `depth` times and double it again, joining what lies across (Ronneberger et al. 2015, figure 1).

    Convolutions are padded and followed by BN, as usual today; the decoder enlarges by transposed convolutions, or
    bilinearly where `bilinear`.
    """

    def __init__(self, num_classes: int, in_channels: int, width: int, depth: int, *, bilinear: bool) -> None:
        super().__init__()
        if not 1 <= depth <= DEEPEST:
            raise ValueError(f"depth must be 1 to {DEEPEST}, not {depth}")
        widths = [width * 2**level for level in range(depth + 1)]
        self.first = _two_convolutions(in_channels, width)
        self.down = nn.ModuleList(_two_convolutions(one, two) for one, two in pairwise(widths))
        self.up = nn.ModuleList(
            nn.Conv2d(two, one, 1) if bilinear else nn.ConvTranspose2d(two, one, 2, 2) for one, two in pairwise(widths)
        )
        self.join = nn.ModuleList(_two_convolutions(2 * one, one) for one in widths[:-1])
        self.bilinear = bilinear
        self.last = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (batch, channels, height, width) to logits (batch, classes, height, width)."""
        across = [self.first(images)]
        for block in self.down:
            across.append(block(F.max_pool2d(across[-1], 2)))
        x = across.pop()
        for level in reversed(range(len(across))):
            x = self.up[level](x)
            if self.bilinear:
                x = F.interpolate(x, size=across[level].shape[2:], mode="bilinear", align_corners=False)
            x = self.join[level](torch.cat((across[level], x), 1))
        logits: Tensor = self.last(x)
        return logits


def _two_convolutions(inputs: int, outputs: int) -> nn.Sequential:
    """Return two 3x3 convolutions with BN and ReLU."""
    layers: list[nn.Module] = []
    for count in (inputs, outputs):
        layers += [nn.Conv2d(count, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def unet(num_classes: int, in_channels: int = 3, width: int = 16, depth: int = 3, bilinear: bool = False) -> nn.Module:
    """Build a U-Net of `width` channels at full size, twice as many after each of `depth` halvings.

    Heights and widths must be multiples of 2^depth, unless `bilinear`.
    """
    return UNet(num_classes, in_channels, width, depth, bilinear=bilinear)
