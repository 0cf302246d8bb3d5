"""Count what a forward pass without gradients holds at most, in a run on meta tensors, which compute nothing."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from autoslim_cli.cost.activation_memory import VALUE_BYTES
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.rehearsal import on_meta

IMAGES = 2
"""Images of the run: one may be a case of its own."""


def values_held(network: nn.Module, inputs: Sequence[tuple[int, ...]]) -> int:
    """Return the most values that a network in eval mode holds at a time for an image of inputs of these shapes.

    The run is that of its own code, so all counts that its frames hold, and the inputs; weights do not, nor what a
    kernel needs for itself. Of a network that does not run on meta tensors nothing is known, and 0 returned.
    """
    images = [torch.empty(IMAGES, *shape, device="meta") for shape in inputs]
    try:
        copied = on_meta(network).eval()
        live = Live((*copied.parameters(), *copied.buffers(), *images))
        with torch.no_grad(), live:
            copied(*images)
    except Exception:  # whatever its code raises where values are missing: a detector's, for one
        return 0
    return (live.most + sum(image.nbytes for image in images)) // (VALUE_BYTES * IMAGES)


def forward_memory(network: nn.Module, reading: Reading) -> Callable[[int], int]:
    """Return the bytes that forward passes in fp32, without gradients, hold at most, as a function of images.

    They are those of the part that was traced of a network built as one that was read.
    """
    values = values_held(reading.traced(network), reading.inputs)
    return lambda images: VALUE_BYTES * values * images


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Note the most bytes of tensors that are alive at a time, beside those that were there before."""

    def __init__(self, before: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.before = {tensor.untyped_storage()._cdata for tensor in before}
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and look at what is alive then."""
        found = func(*args, **(kwargs or {}))
        self.alive = {key: one for key, one in self.alive.items() if not one[0].expired()}  # type: ignore[no-untyped-call]
        for tensor in tree_iter(found):
            storage = tensor.untyped_storage() if isinstance(tensor, Tensor) else None
            if storage is not None and storage._cdata not in self.before:
                self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())  # type: ignore[no-untyped-call]
        self.most = max(self.most, sum(size for _, size in self.alive.values()))
        return found
