"""Build the VGG for small images."""

from collections.abc import Sequence

from torch import Tensor, nn

POOL = "M"
"""Max-pooling, in a list of channels: as torchvision writes it."""
MOST_LAYERS = 64
"""More than anybody trained without shortcuts; a config that asks for more would not end."""
VGG_16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)


class CifarVGG(nn.Module):
    """3x3 convolutions with BN and ReLU, max-pooling between them, and one linear layer.

    The VGG networks (Simonyan & Zisserman 2015, table 1) as they are used on images of 32x32: with BN, averaged over
    what is left of the image, and without their hidden linear layers (Li et al. 2017, section 4.1, keep one of 512).
    """

    def __init__(self, num_classes: int, layers: Sequence[int | str], in_channels: int) -> None:
        super().__init__()
        if not 1 <= len(layers) <= MOST_LAYERS or layers[0] == POOL:
            raise ValueError(f"layers must be 1 to {MOST_LAYERS} counts of channels and {POOL!r}, a count first")
        blocks: list[nn.Module] = []
        channels = in_channels
        for layer in layers:
            if layer == POOL:
                blocks.append(nn.MaxPool2d(2))
                continue
            if type(layer) is not int or layer < 1:
                raise ValueError(f"layers must be counts of channels or {POOL!r}, not {layer!r}")
            blocks.append(_convolution(channels, layer))
            channels = layer
        self.features = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (batch, channels, height, width) to logits (batch, classes)."""
        logits: Tensor = self.fc(self.pool(self.features(images)).flatten(1))
        return logits


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Return a 3x3 convolution with BN and ReLU."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def cifar_vgg(num_classes: int, layers: Sequence[int | str] = VGG_16, in_channels: int = 3) -> nn.Module:
    """Build VGG-16 for small images, or by `layers` its like; 313,201,664 FLOPs at 32x32, 3 channels, 10 classes."""
    return CifarVGG(num_classes, layers, in_channels)
