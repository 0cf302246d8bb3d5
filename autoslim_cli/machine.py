"""Set up the machine: the device, and what its memory allows."""

import ctypes
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import psutil
import torch

from autoslim_cli.errors import UsageError
from autoslim_cli.launch import launched

with suppress(ImportError):  # not on every system
    import resource

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def choose_device(name: str) -> torch.device:
    """Return the device that a recipe names; `auto` takes CUDA, then MPS, then the CPU.

    Under torchrun, `auto` and `cuda` are the GPU of the process's local rank.

    Raises UsageError if it is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return own_gpu()
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        named = device.type == "cuda" and device.index is not None and torch.cuda.device_count() > 1
        if named and (processes := launched().local_size) > 1:
            raise RuntimeError(f"{processes} processes on this machine would share one; cuda shares out all GPUs")
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("not one of cpu, cuda and mps")
        device = own_gpu() if device == torch.device("cuda") else device
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device: {name!r} cannot be used here ({reason}); try device=auto") from None
    return device


def own_gpu() -> torch.device:
    """Return the GPU of this process: torchrun's local rank picks it, round robin."""
    launch, count = launched(), torch.cuda.device_count()
    return torch.device("cuda", launch.local_rank % count) if launch.size > 1 and count else torch.device("cuda")


def free_memory(device: torch.device, on_one_gpu: int = 1) -> int:
    """Return the bytes that this process may take of a device's free memory: a job's processes share it.

    `on_one_gpu` of them compute on the same GPU.

    Of a CPU's memory it is what the system calls available, on Linux within the control group's limit.
    What an earlier stage of this process has freed counts as free, though the process keeps it for the next.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return kept + torch.cuda.mem_get_info(device)[0] // on_one_gpu
    free = _available(device)
    try:
        limit, used = (Path("/sys/fs/cgroup", name).read_text().strip() for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines())
        cache = int(stat["inactive_file"])  # goes when memory is asked for
        free = min(free, int(limit) - int(used) + cache)
    except (OSError, ValueError, KeyError):  # no such group (version 2), or no limit
        pass
    return free // launched().local_size + _handed_back()


def _available(device: torch.device) -> int:
    """Return the bytes of main memory that are free, of which MPS takes a part at most; 4 GiB where nothing tells."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of figures beside this one
            free = psutil.virtual_memory().available
    except (OSError, psutil.Error):
        free = 4 * 2**30
    return min(free, torch.mps.recommended_max_memory()) if device.type == "mps" else free


def available_cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Let glibc keep freed activation buffers instead of handing them back to the kernel at every step.

    Page faults otherwise cost as much as the arithmetic on a CPU. Without glibc nothing happens.
    """
    _in_glibc(("mallopt", _M_MMAP_MAX, 0), ("mallopt", _M_TRIM_THRESHOLD, 2**31 - 1))


def _handed_back() -> int:
    """Let glibc hand what is free back to the kernel, and return its bytes: the kernel's own count lags behind."""
    before = _resident()
    _in_glibc(("malloc_trim", 0))
    return max(0, before - _resident())


def memory_used(device: torch.device) -> int:
    """Return the most bytes that tensors took on a GPU so far; on a CPU, that the process took."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if "resource" in globals():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    now = psutil.Process().memory_info()
    return int(getattr(now, "peak_wset", now.rss))


def _resident() -> int:
    """Return the bytes of memory that this process has."""
    return psutil.Process().memory_info().rss


def _in_glibc(*calls: tuple[str, *tuple[int, ...]]) -> None:
    """Call functions of glibc, where there is one."""
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        for name, *arguments in calls:
            getattr(libc, name)(*arguments)
