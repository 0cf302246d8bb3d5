"""Build MobileNetV1 as the authors of the slimmable networks have it."""

from torch import Tensor, nn

OUTPUTS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
STEM, DIVISOR = 32, 8


class MobileNetV1(nn.Module):
    """A stem and thirteen depthwise-separable convolutions (Howard et al. 2017, table 1).

    With ReLU6 (Howard et al. have ReLU) and the initialisation of the authors of AutoSlim: He et al.'s by outputs for
    convolutions, a deviation of 0.01 for the classifier.
    """

    def __init__(self, num_classes: int, width_mult: float, in_channels: int, dropout: float) -> None:
        super().__init__()
        inputs = _scaled(STEM, width_mult)
        blocks: list[nn.Module] = [_convolution(in_channels, inputs, 3, 2)]
        for count, stride in zip(OUTPUTS, STRIDES, strict=True):
            outputs = _scaled(count, width_mult)
            depthwise = _convolution(inputs, inputs, 3, stride, groups=inputs)
            blocks.append(nn.Sequential(depthwise, _convolution(inputs, outputs, 1, 1)))
            inputs = outputs
        self.features = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(inputs, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (batch, channels, height, width) to logits (batch, classes)."""
        logits: Tensor = self.classifier(self.dropout(self.pool(self.features(images)).flatten(1)))
        return logits


def _convolution(inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> nn.Sequential:
    """Return a convolution with BN and ReLU6."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True))


def _scaled(count: int, width_mult: float) -> int:
    """Scale a count to a width in multiples of the divisor, rounded down by a tenth at most."""
    scaled = max(DIVISOR, int(count * width_mult + DIVISOR / 2) // DIVISOR * DIVISOR)
    return scaled + DIVISOR if scaled < 0.9 * count * width_mult else scaled


def mobilenet_v1(
    num_classes: int = 1000, width_mult: float = 1.0, in_channels: int = 3, dropout: float = 0.0
) -> nn.Module:
    """Build MobileNetV1; 568,740,352 FLOPs at 1.0x, 224x224 and 1,000 classes."""
    return MobileNetV1(num_classes, width_mult, in_channels, dropout)
