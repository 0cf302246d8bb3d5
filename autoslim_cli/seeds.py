"""Make randomness a function of (recipe seed, purpose, place)."""

import hashlib
import random

import torch


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
