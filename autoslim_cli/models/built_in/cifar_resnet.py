"""Build the ResNet for small images."""

from torch import Tensor, nn

DEEPEST = 1202
"""The deepest that He et al. trained; a config that asks for more would not end."""


class BasicBlock(nn.Module):
    """Add two 3x3 convolutions to a shortcut (He et al. 2016, section 3.3, option B)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        out: Tensor = self.relu(y + self.shortcut(x))
        return out


class CifarResNet(nn.Module):
    """The ResNet for small images: three stages of (depth - 2) / 6 blocks (He et al. 2016, section 4.2)."""

    def __init__(
        self, num_classes: int, depth: int, in_channels: int, width: int, stem_stride: int, growth: int
    ) -> None:
        super().__init__()
        blocks, left = divmod(depth - 2, 6)
        if blocks < 1 or left:
            raise ValueError(f"depth must be 6n + 2, not {depth}")
        if depth > DEEPEST:
            raise ValueError(f"depth must be {DEEPEST} at most, not {depth}")
        self.conv1 = nn.Conv2d(in_channels, width, 3, stem_stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        second, third = growth * width, growth**2 * width
        self.layer1 = _stage(blocks, width, width, 1)
        self.layer2 = _stage(blocks, width, second, 2)
        self.layer3 = _stage(blocks, second, third, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(third, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Map images (batch, channels, height, width) to logits (batch, classes)."""
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.pool(x).flatten(1))
        return logits


def _stage(blocks: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Return residual blocks of one width; the first of them has the stride."""
    rest = [BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(inputs, outputs, stride), *rest)


def cifar_resnet(
    num_classes: int, depth: int = 20, in_channels: int = 3, width: int = 16, stem_stride: int = 1, growth: int = 2
) -> nn.Module:
    """Build ResNet-8, -14, -20, ... for small images; 40,876,544 FLOPs at depth 20, 32x32 and 10 classes.

    Every stage is `growth` times as wide as the one before (He et al.: twice).
    """
    return CifarResNet(num_classes, depth, in_channels, width, stem_stride, growth)
