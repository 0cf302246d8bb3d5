"""Compute strided 1x1 convolutions as a subsampling and a convolution of stride 1.

The same numbers; needed because oneDNN's backward pass of a strided 1x1 convolution in channels-last memory with fewer
inputs than a vector block reads and writes out of bounds on the CPU: it hangs, or gives wrong gradients
(uxlfoundation/oneDNN issue 6035). Slim sub-networks have such layers.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import EllipsisType, MethodType
from typing import TypeGuard

import torch.nn.functional as F
from torch import Tensor, nn

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
_CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def _is_plain_convolution(layer: nn.Module) -> TypeGuard[Convolution]:
    """Tell whether a layer is a convolution of torch's and no subclass, which may compute anything."""
    return type(layer) in (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _is_strided_pointwise(layer: Convolution) -> bool:
    """Tell whether a convolution only looks at every s-th position."""
    is_padded = layer.padding != "valid" and any(layer.padding)
    return set(layer.kernel_size) == {1} and max(layer.stride) > 1 and not is_padded


@contextmanager
def without_strided_pointwise(network: nn.Module) -> Iterator[None]:
    """Let a network's strided 1x1 convolutions compute the other way while it trains."""
    layers = [m for m in network.modules() if _is_plain_convolution(m) and _is_strided_pointwise(m)]
    for layer in layers:
        vars(layer)["forward"] = MethodType(_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["forward"]


def _forward(layer: Convolution, x: Tensor) -> Tensor:
    """Stand in for the forward of an nn.Conv1d, 2d or 3d on `x` (batch, channels, ...)."""
    seen: tuple[EllipsisType | slice, ...] = (..., *(slice(None, None, stride) for stride in layer.stride))
    return _CONVOLUTIONS[len(layer.kernel_size)](x[seen], layer.weight, layer.bias, groups=layer.groups)
