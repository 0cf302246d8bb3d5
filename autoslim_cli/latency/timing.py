"""Time calls: interleaved in rounds with warm caches, and with cold ones."""

import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch

from autoslim_cli.latency.engines import Run

ROUNDS, COLD_ROUNDS = 9, 5

SAMPLE_SECONDS = 0.002
"""What one sample takes at least: short calls are repeated within it."""

LEAST_CACHE, MOST_CACHE = 32 * 2**20, 64 * 2**20
"""Bytes that the last cache is taken to hold where it does not say, or says less or more: servers name what all of
their processors share."""


def time_interleaved(runs: Sequence[Run], place: torch.device, rounds: int = ROUNDS) -> list[tuple[float, float]]:
    """Return each call's median milliseconds and the quartile distance over it: rounds over all calls, one by one."""
    with _undisturbed():
        counts = [_calls_per_sample(run, place) for run in runs]
        samples: list[list[float]] = [[] for _ in runs]
        for _ in range(rounds):
            for run, count, ms in zip(runs, counts, samples, strict=True):
                ms.append(_seconds(run, count, place) * 1e3)
    result = []
    for ms in samples:
        low, median, high = statistics.quantiles(ms, n=4) if len(ms) > 1 else ms * 3
        result.append((median, (high - low) / median))
    return result


def time_cold(runs: Sequence[Run], place: torch.device) -> list[float]:
    """Return the milliseconds that each call takes more when its weights have left the caches: a median, at least zero.

    Its inputs are touched again before: in a network another layer has just written them.
    """
    flush = _flusher(place)
    result = []
    with _undisturbed():
        for run in runs:
            _seconds(run, 2, place)
            added = []
            for _ in range(COLD_ROUNDS):
                flush()
                for tensor in run.inputs:
                    tensor.sum()
                added.append(_seconds(run, 1, place) - _seconds(run, 1, place))
            result.append(max(statistics.median(added) * 1e3, 0.0))
    return result


@cache
def _flusher(place: torch.device) -> Callable[[], object]:
    """Return a call that reads twice as many bytes as the last cache of a device holds."""
    size = 0
    if place.type == "cuda":
        size = torch.cuda.get_device_properties(place).L2_cache_size
    elif "SC_LEVEL3_CACHE_SIZE" in getattr(os, "sysconf_names", {}):
        size = os.sysconf("SC_LEVEL3_CACHE_SIZE")
    size = min(max(size, LEAST_CACHE), MOST_CACHE)
    return torch.ones(2 * size // 4, device=place).sum


def _calls_per_sample(run: Run, place: torch.device) -> int:
    """Warm a call up, and return how often it runs within a sample."""
    _seconds(run, 2, place)
    return max(1, min(math.ceil(SAMPLE_SECONDS / max(_seconds(run, 2, place), 1e-7)), 1000))


def _seconds(run: Run, count: int, place: torch.device) -> float:
    """Return the seconds of one call, the mean over some."""
    _wait(place)
    started = time.perf_counter()
    for _ in range(count):
        run()
    _wait(place)
    return (time.perf_counter() - started) / count


def _wait(place: torch.device) -> None:
    """Wait for the work in flight."""
    if place.type == "cuda":
        torch.cuda.synchronize(place)
    elif place.type == "mps":
        torch.mps.synchronize()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep the garbage collector and autograd out of what is timed."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        with torch.inference_mode():
            yield
    finally:
        if collecting:
            gc.enable()
