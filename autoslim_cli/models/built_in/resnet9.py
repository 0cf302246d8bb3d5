"""Build the network of the quickest trainings on CIFAR-10."""

from torch import Tensor, nn

SCALE = 0.125
"""Of the logits: without it the first steps of so high a rate saturate the softmax."""


class ResNet9(nn.Module):
    """Four convolutions, three of which halve the image, and two residual pairs.

    After D. Page 2018, How to Train Your ResNet. As in the last of his networks, pooling comes before BN, which
    then works on a quarter of the pixels.
    """

    def __init__(self, num_classes: int, width: int, in_channels: int) -> None:
        super().__init__()
        self.prep = _convolution(in_channels, width)
        self.layer1 = _halved(width, 2 * width)
        self.residual1 = _pair(2 * width)
        self.layer2 = _halved(2 * width, 4 * width)
        self.layer3 = _halved(4 * width, 8 * width)
        self.residual3 = _pair(8 * width)
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.fc = nn.Linear(8 * width, num_classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (batch, channels, height, width) to logits (batch, classes)."""
        x = self.layer1(self.prep(images))
        x = x + self.residual1(x)
        x = self.layer3(self.layer2(x))
        x = x + self.residual3(x)
        logits: Tensor = self.fc(self.pool(x).flatten(1)) * SCALE
        return logits


def _convolution(inputs: int, outputs: int, *between: nn.Module) -> nn.Sequential:
    """Return a 3x3 convolution with BN and ReLU, and what comes between convolution and BN."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(convolution, *between, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _halved(inputs: int, outputs: int) -> nn.Sequential:
    """Return a convolution that halves the image by max-pooling."""
    return _convolution(inputs, outputs, nn.MaxPool2d(2))


def _pair(width: int) -> nn.Sequential:
    """Return what a residual adds: two convolutions."""
    return nn.Sequential(_convolution(width, width), _convolution(width, width))


def resnet9(num_classes: int, width: int = 64, in_channels: int = 3) -> nn.Module:
    """Build ResNet-9 for small images; 379,261,952 FLOPs at width 64, 32x32 and 10 classes."""
    return ResNet9(num_classes, width, in_channels)
