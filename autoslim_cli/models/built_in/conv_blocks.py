"""Build the plain network of few-shot learning: the same block over and over, of as many channels."""

from torch import Tensor, nn

DEEPEST = 12
"""Each block halves the image: 4,096 pixels a side are one after as many."""


class ConvBlocks(nn.Module):
    """Blocks of a 3x3 convolution, BN, ReLU and 2x2 max-pooling, all of one width (Vinyals et al. 2016, section 4.1).

    They end in 64 numbers that two images are compared by, at four blocks and 28x28; here a linear layer follows.
    """

    def __init__(self, num_classes: int, depth: int, width: int, in_channels: int) -> None:
        super().__init__()
        if not 1 <= depth <= DEEPEST:
            raise ValueError(f"depth must be 1 to {DEEPEST}, not {depth}")
        inputs = (in_channels, *[width] * (depth - 1))
        self.blocks = nn.Sequential(*(_block(count, width) for count in inputs))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (batch, channels, height, width) to logits (batch, classes)."""
        logits: Tensor = self.fc(self.pool(self.blocks(images)).flatten(1))
        return logits


def _block(inputs: int, outputs: int) -> nn.Sequential:
    """Return a block, which halves the image."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True), nn.MaxPool2d(2))


def conv_blocks(num_classes: int, depth: int = 4, width: int = 64, in_channels: int = 3) -> nn.Module:
    """Build Conv-4 and its like; 10,718,848 FLOPs at depth 4, width 64, 28x28, 3 channels and 10 classes."""
    return ConvBlocks(num_classes, depth, width, in_channels)
