"""Run forward and backward passes in the recipe's arithmetic, each over a part of a step's images."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Pass:
    """A forward and backward pass over a part of a step's images: a process's, or a micro-batch of it.

    `number` is the step's, `share` the part's share of its images. Forward passes and losses are computed within
    `forward()`, backward passes outside of it, as torch.autocast asks for. `before_last` is given what the last
    backward pass of all begins at, if this part of the images is the last.
    """

    number: int = 0
    share: float = 1.0
    forward: Callable[[], AbstractContextManager[object]] = nullcontext
    scale: Callable[[Tensor], Tensor] = lambda loss: loss
    before_last: Callable[[Tensor], None] = lambda loss: None

    def backward(self, loss: Tensor, *, last: bool) -> Tensor:
        """Add the gradients of a mean loss over the part; return what it adds to the step's mean loss: ().

        It is the `last` if no other sub-network learns from the part.
        """
        part = loss if self.share == 1 else loss * self.share
        scaled = self.scale(part)
        if last:
            self.before_last(scaled)
        scaled.backward()  # type: ignore[no-untyped-call]
        return part.detach()
