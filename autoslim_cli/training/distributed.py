"""Share work among the processes of a torchrun job; one process alone is a job of one."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from autoslim_cli.errors import AutoslimError, is_out_of_memory
from autoslim_cli.files.provenance import first_difference
from autoslim_cli.interruption import ended_by_signals
from autoslim_cli.launch import launched
from autoslim_cli.machine import own_gpu

Value = TypeVar("Value")

PATIENCE = timedelta(hours=2)
"""How long a process waits for another that works alone, as one that decodes a whole data set."""
ALIKE = (
    "start all machines' processes by the same command, with the recipe's directory on a disk that they share, and "
    "the same images"
)
"""What to do where processes would not do the same work."""
BUCKET = 25 * 2**20
"""Bytes that are summed at a time: enough to fill a network's bandwidth, little beside the gradients themselves."""


@dataclass(frozen=True)
class Ranks:
    """This process's place among those of the job.

    All processes call the same methods in the same order. Each raises AutoslimError if another process has gone; those
    that gather do, too, where another process gathers something else.
    """

    rank: int = 0
    size: int = 1
    on_one_gpu: int = 1
    """Processes that compute on this one's GPU, itself included."""

    @property
    def first(self) -> bool:
        """Tell whether this is the process that writes files and talks."""
        return self.rank == 0

    def gather(self, value: Value, what: str) -> list[Value]:
        """Return every process's value, in the order of ranks, to every process; `what` says which values these are."""
        return [value] if self.size == 1 else _gathered(value, what)

    def agreed(self, value: Value, what: str) -> Value:
        """Return a value that all processes have found. Raises AutoslimError naming the first difference."""
        first, *others = self.gather(value, what)
        for rank, other in enumerate(others, 1):
            if differs := first_difference(first, other):
                name, one, another = differs
                raise AutoslimError(
                    f"the processes of this job find different {what}: {name}{' is ' * bool(name)}{one} in process 0, "
                    f"{another} in process {rank}; {ALIKE}"
                )
        return value

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one device and type by their sums over all processes, in buckets."""
        if self.size == 1:
            return
        for bucket in buckets(tensors):
            Sum.of(bucket).end()

    def copy_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by those of the first process."""
        if self.size == 1:
            return
        for tensor in (tensor.detach() for tensor in tensors):
            whole = tensor.contiguous()
            with _others():
                dist.broadcast(whole, 0)
            tensor.copy_(whole)

    def wait(self, what: str) -> None:
        """Wait for all processes to get to one place, which `what` names: what the first one wrote is there then."""
        self.gather(None, what)


@dataclass(frozen=True)
class Sum:
    """A sum of tensors of one device and type over all processes, under way."""

    tensors: Sequence[Tensor]
    flat: Tensor
    work: Any

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> "Sum":
        """Begin a sum; all processes begin theirs in the same order."""
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _others():
            return cls(tensors, flat, dist.all_reduce(flat, async_op=True))

    def end(self) -> None:
        """Wait for the sum, and replace the tensors by it."""
        with _others():
            self.work.wait()
        parts = torch.split(self.flat, [tensor.numel() for tensor in self.tensors])
        for tensor, part in zip(self.tensors, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))


class Poll:
    """Ask at every step whether any process says yes. Several learn it at the next step, so that none waits for it."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.asked: tuple[Tensor, Any] | None = None

    def __call__(self, yes: bool) -> bool:
        """Tell whether any process said yes: now if there is one, else at the last call."""
        if self.ranks.size == 1:
            return yes
        before, votes = self.asked, torch.tensor([int(yes)])
        with _others():
            if before is not None:
                before[1].wait()
            self.asked = votes, dist.all_reduce(votes, async_op=True)
        return before is not None and bool(before[0])

    def end(self) -> None:
        """Wait for the last vote: a process that leaves with one under way is aborted by its libraries."""
        if self.asked is not None:
            with _others():
                self.asked[1].wait()
            self.asked = None


_JOINED: list[Ranks] = []
"""This process's place in the job that it has joined."""


def join_ranks(*, on_gpus: bool = True) -> Ranks:
    """Join the job that torchrun started this process in, if it did. `on_gpus`: GPUs compute where there are some."""
    launch = launched()
    if launch.size == 1:
        return Ranks()
    if not dist.is_initialized():
        with ended_by_signals():  # while others are not there yet
            store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
            gpus = told_by_all(store, rank, size, _gpu_of_all() if on_gpus else NO_GPU)
            # NCCL has no two processes on one GPU. What lies in main memory goes through gloo in either case.
            backend = "gloo" if NO_GPU in gpus or len(set(gpus)) < size else "cpu:gloo,cuda:nccl"
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
        _JOINED[:] = [Ranks(rank, size, 1 if gpus[rank] == NO_GPU else gpus.count(gpus[rank]))]
    return _JOINED[0]


NO_GPU = "none"


def _gpu_of_all() -> str:
    """Choose the GPU of this process, and return its name among those of all machines.

    How many a process sees does not tell whether it shares one: some launchers show each process its own alone.
    """
    if not torch.cuda.device_count():
        return NO_GPU
    torch.cuda.set_device(own_gpu())
    return str(torch.cuda.get_device_properties(own_gpu()).uuid)


def told_by_all(store: Store, rank: int, size: int, mine: str) -> list[str]:
    """Return what every process says in a store, in the order of ranks, before they are a group."""
    store.set(f"autoslim/told/{rank}", mine)
    return [store.get(f"autoslim/told/{other}").decode() for other in range(size)]


_LEFT: list[Any] = []
"""Groups of processes that were left, kept: Python takes one apart under its lock, and waits for gloo's threads, which
may wait for that lock (seen with torch 2.6)."""


def leave_ranks() -> None:
    """Leave the job, if this process joined one, once no process needs another."""
    if dist.is_initialized():
        _gathered(None, "the end of the command")
        _LEFT.append(dist.group.WORLD)
        dist.destroy_process_group()


def first_to_fail() -> bool:
    """Tell whether no other process of the job has said yet why the job fails: one line is enough."""
    try:
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(*place, is_master=False, timeout=timedelta(seconds=5))
        return store.add(f"autoslim/failed/{os.environ.get('TORCHELASTIC_RESTART_COUNT')}", 1) == 1
    except (KeyError, ValueError, RuntimeError):  # no store, or it went with the first process
        return True


def _gathered(value: Value, what: str) -> list[Value]:
    """Return all processes' values; each says what it gathers: those of another kind would be taken for these."""
    pairs: list[Any] = [None] * dist.get_world_size()
    with _others():
        dist.all_gather_object(pairs, (what, value))
    first, *others = (kind for kind, _ in pairs)
    for rank, other in enumerate(others, 1):
        if other != first:
            raise AutoslimError(
                f"the processes of this job do different work: process 0 is at {first}, process {rank} at {other}; "
                f"{ALIKE}"
            )
    return [found for _, found in pairs]


@contextmanager
def _others() -> Iterator[None]:
    """Say in one line that work with other processes fails."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise AutoslimError(
            "another process of this torchrun job has gone or cannot be reached; start the job again with --resume "
            f"({reason})"
        ) from error


def buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield tensors in runs of some megabytes."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        bucket.append(tensor)
        if sum(t.nbytes for t in bucket) >= BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket
