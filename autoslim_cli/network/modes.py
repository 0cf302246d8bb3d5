"""Keep the modes of a network's modules, training or eval, which are not all the same where some are frozen."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def modes_kept(network: nn.Module) -> Iterator[None]:
    """Leave every module in the mode, training or eval, that it was in."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training
