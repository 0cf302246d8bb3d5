"""Build ShuffleNet v1 with three groups, the network of S-ShuffleNet."""

import torch
from torch import Tensor, nn

GROUPS = 3
STEM = 24
STAGES = ((240, 4), (480, 8), (960, 4))
"""Output channels and units of each stage with three groups (Zhang et al. 2018, table 1)."""


class ShuffleUnit(nn.Module):
    """A bottleneck of grouped 1x1 convolutions with a channel shuffle (Zhang et al. 2018, figure 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int, first_groups: int) -> None:
        super().__init__()
        middle = outputs // 4
        branch = outputs - inputs if stride == 2 else outputs
        self.conv1 = nn.Conv2d(inputs, middle, 1, groups=first_groups, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, 1, groups=middle, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, branch, 1, groups=GROUPS, bias=False)
        self.bn3 = nn.BatchNorm2d(branch)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AvgPool2d(3, 2, 1) if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(_shuffled(y)))
        y = self.bn3(self.conv3(y))
        out: Tensor = self.relu(x + y if self.pool is None else torch.cat((self.pool(x), y), 1))
        return out


def _shuffled(x: Tensor) -> Tensor:
    """Interleave the channels of the groups."""
    batch, channels, height, width = x.shape
    return x.view(batch, GROUPS, channels // GROUPS, height, width).transpose(1, 2).flatten(1, 2)


class ShuffleNetV1(nn.Module):
    """A stem and three stages of shuffle units."""

    def __init__(self, num_classes: int, width_mult: float) -> None:
        super().__init__()
        quantum = 4 * GROUPS
        inputs = max(6, round(STEM * width_mult / 6) * 6)
        self.conv1 = nn.Conv2d(3, inputs, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        units: list[nn.Module] = []
        for count, repeats in STAGES:
            outputs = max(quantum, round(count * width_mult / quantum) * quantum)
            for place in range(repeats):
                units.append(ShuffleUnit(inputs, outputs, 1 if place else 2, GROUPS if units else 1))
                inputs = outputs
        self.units = nn.Sequential(*units)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (batch, 3, height, width) to logits (batch, classes)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        logits: Tensor = self.fc(self.pool(self.units(x)).flatten(1))
        return logits


def shufflenet_v1(num_classes: int = 1000, width_mult: float = 1.0) -> nn.Module:
    """Build ShuffleNet v1 with three groups at a width; 137,460,672 FLOPs at 1.0x, 224x224 and 1,000 classes."""
    return ShuffleNetV1(num_classes, width_mult)
