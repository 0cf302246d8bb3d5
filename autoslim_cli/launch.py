"""Say whether torchrun started this process, and as which of how many. Needs no torch."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """The place of a process in its job; a process that torchrun did not start is a job of one."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Tell whether this is the process that writes files and talks."""
        return self.rank == 0


def launched() -> Launch:
    """Read what torchrun tells its processes; cluster managers that set only some of it did not start a job."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    values = [os.environ.get(name, "") for name in (*names, "MASTER_ADDR")]
    if not all(values) or not all(value.isdigit() for value in values[:4]):
        return Launch()
    rank, size, local_rank, local_size = map(int, values[:4])
    return Launch(rank, size, local_rank, local_size)
