"""Build super-resolution networks after WDSR, the networks of US-Nets' figure 4."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoslim_cli.models.built_in.edsr import refuse_other


class WeightNormConv2d(nn.Conv2d):
    """A convolution whose every output channel is scaled to a learned length (Salimans and Kingma 2016).

    The length is taken over the input channels in use: a sub-network computes what the same layer of its size computes.
    torch's own weight_norm computes one weight from two others, of a size that no layer can be told.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        with torch.no_grad():
            self.gain = nn.Parameter(self.weight.flatten(1).norm(dim=1))

    def forward(self, input: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height, width)."""
        direction = F.normalize(self.weight.flatten(1), dim=1).view_as(self.weight)
        output: Tensor = self._conv_forward(input, self.gain.view(-1, 1, 1, 1) * direction, self.bias)
        return output


class Block(nn.Module):
    """Widen, activate, and narrow again, added to the input (Yu et al. 2018, figure 2: WDSR-A)."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.conv1 = WeightNormConv2d(width, width * expansion, 3)
        self.conv2 = WeightNormConv2d(width * expansion, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, width, height, width) to the same shape."""
        y: Tensor = x + self.conv2(F.relu(self.conv1(x)))
        return y


class WDSR(nn.Module):
    """Wide activations at the small image's size, one pixel shuffle, and a 5x5 convolution beside (Yu et al. 2018).

    What it adds to WDSR: the bicubically enlarged image is added to the output, and the gains of the last layers start
    near zero, so that a short training starts from there.
    """

    def __init__(self, scale: int, blocks: int, width: int, expansion: int, in_channels: int) -> None:
        super().__init__()
        refuse_other(scale, blocks)
        self.scale = scale
        self.head = WeightNormConv2d(in_channels, width, 3)
        self.body = nn.Sequential(*(Block(width, expansion) for _ in range(blocks)))
        self.tail = WeightNormConv2d(width, in_channels * scale**2, 3)
        self.skip = WeightNormConv2d(in_channels, in_channels * scale**2, 5)
        self.shuffle = nn.PixelShuffle(scale)
        for last in (self.tail, self.skip):
            nn.init.constant_(last.gain, 1e-2)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Map images (batch, channels, height, width) to (batch, channels, height * scale, width * scale)."""
        x = self.tail(self.body(self.head(images)))
        enlarged = F.interpolate(images, scale_factor=self.scale, mode="bicubic", align_corners=False)
        large: Tensor = self.shuffle(x + self.skip(images)) + enlarged
        return large


def wdsr(scale: int = 2, blocks: int = 8, width: int = 16, expansion: int = 4, in_channels: int = 3) -> nn.Module:
    """Build a super-resolution network of weight-normalised wide-activation blocks: the authors have 16 of width 32."""
    return WDSR(scale, blocks, width, expansion, in_channels)
