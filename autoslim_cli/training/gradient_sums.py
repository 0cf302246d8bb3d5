"""Sum gradients over the processes of a job while the last backward pass of a step still runs."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from autoslim_cli.training.distributed import Ranks, Sum, buckets


class GradientSums:
    """The sums of a network's gradients over all processes, in buckets, those of the last parameters first.

    Each is begun once none of its gradients is still to come, and never before the one ahead of it: so all processes
    begin them in one order, whatever their backward passes reach, and none waits for one that another never begins.
    Where a process has no gradient it adds zeros; where none has one, there is none afterwards.
    """

    def __init__(self, ranks: Ranks, network: nn.Module) -> None:
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.ranks = ranks
        self.buckets = list(buckets(trained[::-1])) if ranks.size > 1 else []
        self.missing, self.begun = [0] * len(self.buckets), 0
        self.sums: list[Sum] = []
        self.absent: list[tuple[Sequence[Tensor], Tensor]] = []
        self.hooks: list[Any] = []

    def watch(self, loss: Tensor) -> None:
        """Begin sums in the backward pass of a loss, the last one that adds gradients in a step."""
        if not self.buckets:
            return  # nobody to sum with
        # A sub-network's leaves lie in the memory of the parameters that they are parts of.
        bucket_at = {p.untyped_storage().data_ptr(): number for number, some in enumerate(self.buckets) for p in some}
        if len(bucket_at) < sum(map(len, self.buckets)):
            return  # parameters lie in one memory, and of which of them a leaf is a part cannot be told
        for node in _accumulating(loss):
            number = bucket_at.get(node.variable.untyped_storage().data_ptr())
            if number is not None:
                self.missing[number] += 1
                self.hooks.append(node.register_hook(partial(self._came, number)))

    def end(self) -> None:
        """Begin the sums that are left, and leave all where the gradients were."""
        self._begin(len(self.buckets))
        for one in self.sums:
            one.end()
        for parameters, reached in self.absent:
            for parameter, processes in zip(parameters, reached.tolist(), strict=True):
                if not processes:
                    parameter.grad = None
        for hook in self.hooks:
            hook.remove()
        self.missing, self.begun = [0] * len(self.buckets), 0
        self.sums, self.absent, self.hooks = [], [], []

    def _came(self, number: int, *_: object) -> None:
        """Note that a gradient of a bucket is there, and begin the buckets that are next and complete."""
        self.missing[number] -= 1
        complete = self.begun
        while complete < len(self.buckets) and not self.missing[complete]:
            complete += 1
        self._begin(complete)

    def _begin(self, end: int) -> None:
        """Begin the sums of all buckets before a number that are not begun."""
        for bucket in self.buckets[self.begun : end]:
            missing = [number for number, parameter in enumerate(bucket) if parameter.grad is None]
            reached = bucket[0].new_ones(len(bucket))  # by how many processes, once it is summed
            for number in missing:
                bucket[number].grad = torch.zeros_like(bucket[number])
                reached[number] = 0
            gradients = [parameter.grad for parameter in bucket if parameter.grad is not None]
            self.sums.append(Sum.of([*gradients, reached]))
            self.absent += [(bucket, reached)] if missing else []
        self.begun = max(self.begun, end)


def _accumulating(loss: Tensor) -> Iterator[Any]:
    """Yield the nodes of a loss's graph that add gradients to leaves."""
    found, todo = {loss.grad_fn}, [loss.grad_fn]
    while todo:
        node: Any = todo.pop()
        if hasattr(node, "variable"):
            yield node
        before = {one for one, _ in node.next_functions if one is not None} - found
        found |= before
        todo += before
