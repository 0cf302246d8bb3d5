"""Set up the machine: device, memory, randomness."""

import ctypes
import hashlib
import random
import sys

import torch

from autoslim_cli.errors import UsageError

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def choose_device(name: str) -> torch.device:
    """Return the device that a recipe names; `auto` takes CUDA, then MPS, then the CPU.

    Raises UsageError if it is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("not one of cpu, cuda and mps")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device: {name!r} cannot be used here ({reason}); try device=auto") from None
    return device


def keep_freed_memory() -> None:
    """Let glibc keep freed activation buffers instead of handing them back to the kernel at every step.

    Page faults otherwise cost as much as the arithmetic on a CPU. Without glibc nothing happens.
    """
    if sys.platform != "linux":
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    except (OSError, AttributeError):
        return


def seed_from(*parts: int | str) -> int:
    """Return a seed that depends on all parts: randomness is a function of (recipe seed, purpose, place).

    Nothing carries a generator's state along, so work that resumes draws what it would have drawn.
    """
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:7], "big")


def generator(*parts: int | str) -> torch.Generator:
    """Return a CPU generator seeded from all parts."""
    return torch.Generator().manual_seed(seed_from(*parts))


def python_random(*parts: int | str) -> random.Random:
    """Return a Python generator seeded from all parts."""
    return random.Random(seed_from(*parts))
