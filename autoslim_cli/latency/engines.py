"""Run modules by an engine (eager PyTorch, torch.compile, ONNX Runtime), and time them."""

import gc
import io
import math
import os
import platform
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoslim_cli.errors import UsageError
from autoslim_cli.latency.table import Device

ROUNDS = 9
SAMPLE = 0.002
"""Seconds that one sample takes at least: short calls are repeated within it."""

LEAST_CACHE, MOST_CACHE = 32 * 2**20, 64 * 2**20
"""Bytes that the last cache is taken to hold where it does not say, or says less or more: servers name what all of
their processors share."""

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

COLD_ROUNDS = 5


@dataclass(frozen=True)
class Run:
    """A module, ready to be called on some tensors."""

    call: Callable[[], Any]
    inputs: Sequence[Tensor]

    def __call__(self) -> Any:
        """Run it."""
        return self.call()


def here(device: torch.device, engine: str, dtype: str, batch: int, channels_last: bool) -> Device:
    """Describe this machine. Raises UsageError if the engine is not here, or cannot do what is asked."""
    if engine == "onnxruntime":
        if device.type != "cpu" or dtype != "fp32":
            raise UsageError("--engine onnxruntime measures on the CPU in fp32: add device=cpu, leave --dtype out")
        channels_last = False
    if engine == "compile":
        _check_compiler(device)
    version = _onnxruntime().__version__ if engine == "onnxruntime" else torch.__version__
    return Device(
        name=processor() if device.type == "cpu" else _accelerator(device),
        kind=device.type,
        threads=torch.get_num_threads() if device.type == "cpu" else None,
        engine=engine,  # type: ignore[arg-type]
        version=str(version),
        dtype=dtype,  # type: ignore[arg-type]
        batch=batch,
        channels_last=channels_last,
    )


def _check_compiler(device: torch.device) -> None:
    """Raise UsageError if torch.compile cannot make code for a device."""
    try:
        torch.compile(torch.nn.ReLU())(torch.zeros(1, device=device))
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError(f"--engine compile: torch.compile does not work here ({reason})") from None


def processor() -> str:
    """Return the processor's own name for itself; the machine's, where processors have none."""
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        with suppress(OSError):
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    with suppress(OSError):  # boards
        return Path("/proc/device-tree/model").read_text().strip("\0 \n")
    return f"{platform.processor() or platform.machine()} {platform.node()}"


def _accelerator(device: torch.device) -> str:
    """Return the name of a GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def _onnxruntime() -> Any:
    """Return the library. Raises UsageError if it is not installed."""
    try:
        import onnx  # noqa: F401  the exporter needs it
        import onnxruntime
    except ImportError:
        raise UsageError("ONNX needs its libraries: pip install 'autoslim[onnx]'") from None
    return onnxruntime


def load(module: nn.Module, inputs: Sequence[Tensor], device: Device, place: torch.device) -> Run:
    """Return a call that runs a module in eval mode on some tensors, by the engine that a device describes."""
    if device.engine == "onnxruntime":
        return _onnx_session(onnx_bytes(module, inputs), inputs, device)
    dtype = DTYPES[device.dtype]
    ready: Any = module.eval().to(place, dtype)
    tensors = [tensor.to(place, dtype) for tensor in inputs]
    if device.channels_last:
        ready = ready.to(memory_format=torch.channels_last)
        tensors = [t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for t in tensors]
    if device.engine == "compile":
        ready = torch.compile(ready, dynamic=False)

    return Run(lambda: ready(*tensors), tensors)


def onnx_bytes(
    module: nn.Module,
    tensors: Sequence[Tensor],
    *,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
) -> bytes:
    """Return a module as an ONNX file, with BN folded into convolutions. Inputs are x0, x1, ... unless they are named.

    Raises UsageError without the library.
    The exporter by tracing is a hundred times faster than the one by torch.export: hundreds of layers are written.
    """
    _onnxruntime()
    file = io.BytesIO()
    names = inputs or [f"x{number}" for number in range(len(tensors))]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        export: Any = torch.onnx.export  # its types do not know that this exporter writes to files in memory
        whole = module.cpu().float().eval()
        export(whole, tuple(tensors), file, input_names=names, output_names=outputs, dynamo=False)
    return file.getvalue()


def onnx_outputs(model: bytes, feed: dict[str, Any]) -> list[Any]:
    """Return what ONNX Runtime makes of some arrays by name. Raises UsageError without the library."""
    library = _onnxruntime()
    options = library.SessionOptions()
    options.log_severity_level = 3
    session = library.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feed))


def _onnx_session(model: bytes, inputs: Sequence[Tensor], device: Device) -> Run:
    """Open an ONNX file on the CPU."""
    library = _onnxruntime()
    options = library.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = device.threads or 1, 1
    options.log_severity_level = 3
    # Threads of a session that has answered would spin on, and slow down the one that is timed next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = library.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {one.name: inputs[int(one.name[1:])].numpy() for one in session.get_inputs()}  # one may be read for its size

    return Run(lambda: session.run(None, feed), inputs)


def time_all(runs: Sequence[Run], place: torch.device, rounds: int = ROUNDS) -> list[tuple[float, float]]:
    """Return each call's median milliseconds and the quartile distance over it: rounds over all calls, one by one."""
    with _undisturbed():
        loops = [_loops(run, place) for run in runs]
        samples: list[list[float]] = [[] for _ in runs]
        for _ in range(rounds):
            for run, count, own in zip(runs, loops, samples, strict=True):
                own.append(_seconds(run, count, place) * 1e3)
    result = []
    for own in samples:
        low, middle, high = statistics.quantiles(own, n=4) if len(own) > 1 else own * 3
        result.append((middle, (high - low) / middle))
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
            extra = []
            for _ in range(COLD_ROUNDS):
                flush()
                for tensor in run.inputs:
                    tensor.sum()
                extra.append(_seconds(run, 1, place) - _seconds(run, 1, place))
            result.append(max(statistics.median(extra) * 1e3, 0.0))
    return result


@cache
def _flusher(place: torch.device) -> Callable[[], Any]:
    """Return a call that reads twice as many bytes as the last cache of a device holds."""
    size = 0
    if place.type == "cuda":
        size = torch.cuda.get_device_properties(place).L2_cache_size
    elif "SC_LEVEL3_CACHE_SIZE" in getattr(os, "sysconf_names", {}):
        size = os.sysconf("SC_LEVEL3_CACHE_SIZE")
    size = min(max(size, LEAST_CACHE), MOST_CACHE)
    return torch.ones(2 * size // 4, device=place).sum


def _loops(run: Run, place: torch.device) -> int:
    """Warm a call up, and return how often it runs within a sample."""
    _seconds(run, 2, place)
    return max(1, min(math.ceil(SAMPLE / max(_seconds(run, 2, place), 1e-7)), 1000))


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
