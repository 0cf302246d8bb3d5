"""Compute strided 1x1 convolutions as a subsampling and a convolution of stride 1.

The same numbers; needed because oneDNN's backward pass of a strided 1x1 convolution in channels-last memory with fewer
inputs than a vector block reads and writes out of bounds on the CPU: it hangs, or gives wrong gradients
(uxlfoundation/oneDNN issue 6035). Slim sub-networks have such layers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

_CONVOLUTIONS: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def convolve(layer: Any, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """Return the convolution of `x` (batch, channels, ...) with the options of an nn.Conv1d, 2d or 3d."""
    stride = layer.stride
    if is_strided_pointwise(layer):
        seen: Any = (..., *(slice(None, None, s) for s in stride))
        x, stride = x[seen], 1
    result: Tensor = _CONVOLUTIONS[len(layer.kernel_size)](
        x, weight, bias, stride, layer.padding, layer.dilation, groups
    )
    return result


def is_strided_pointwise(layer: Any) -> bool:
    """Tell whether a convolution only looks at every s-th position."""
    return set(layer.kernel_size) == {1} and max(layer.stride) > 1 and not any(layer.padding)


@contextmanager
def sidestepped(network: nn.Module) -> Iterator[None]:
    """Let a plain network's strided 1x1 convolutions compute by `convolve` while it trains."""
    layers = [m for m in network.modules() if type(m) in (nn.Conv1d, nn.Conv2d, nn.Conv3d) and is_strided_pointwise(m)]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: Any, x: Tensor) -> Tensor:
    """Stand in for a convolution's own forward."""
    return convolve(layer, x, layer.weight, layer.bias, layer.groups)
