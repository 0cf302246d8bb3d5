"""Share work among the processes of a torchrun job; one process alone is a job of one."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from autoslim_cli.launch import launched

Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """This process's place among those of the job."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Tell whether this is the process that writes files and talks."""
        return self.rank == 0

    def gather(self, value: Value) -> list[Value]:
        """Return every process's value, in the order of ranks, to every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def leave(self) -> None:
        """Leave the job, once no process needs another."""
        if self.size > 1:
            dist.barrier()
            dist.destroy_process_group()


def join_ranks() -> Ranks:
    """Join the job that torchrun started this process in, if it did."""
    launch = launched()
    if launch.size == 1:
        return Ranks()
    if not dist.is_initialized():
        # Objects are gathered, not tensors of the device: gloo does it without NCCL's device memory.
        dist.init_process_group("gloo", timeout=timedelta(hours=2))
    return Ranks(launch.rank, launch.size)
