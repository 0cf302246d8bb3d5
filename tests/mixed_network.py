"""A small network of a user's own that has everything at once: residual, depthwise, squeeze-excite and concat."""

import torch
from torch import Tensor, nn


def _layer(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class _Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = _layer(channels, channels), _layer(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


class MixedNetwork(nn.Module):
    """2.4M FLOPs for one grey image of 28x28."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.stem = _layer(1, 20, stride=2)
        self.residual = _Residual(20)
        self.expand = _layer(20, 60, kernel=1)
        self.depthwise = _layer(60, 60, stride=2, groups=60)
        self.gate = _Gate(60)
        self.project = _layer(60, 24, kernel=1)
        self.left, self.right = _layer(24, 32), _layer(24, 32, kernel=1)
        self.norm = nn.BatchNorm2d(64)
        self.mix = _layer(64, 64, kernel=1)
        self.fc = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.residual(self.stem(images))
        x = self.project(self.gate(self.depthwise(self.expand(x))))
        x = self.norm(torch.cat([self.left(x), self.right(x)], 1))
        return self.fc(self.mix(x).mean((2, 3)))
