"""Describe this machine as a device that latency is measured on."""

import platform
import subprocess
from contextlib import suppress
from pathlib import Path

import torch

from autoslim_cli.errors import UsageError
from autoslim_cli.latency.onnx_file import onnxruntime
from autoslim_cli.latency.table import Device, DType, Engine


def local_device(place: torch.device, engine: Engine, dtype: DType, batch: int, channels_last: bool) -> Device:
    """Describe this machine's CPU or GPU, and how it is measured.

    Raises UsageError if the engine is not installed, or cannot do what is asked.
    """
    version = str(torch.__version__)
    if engine == "onnxruntime":
        if place.type != "cpu" or dtype != "fp32":
            raise UsageError("--engine onnxruntime measures on the CPU in fp32: add device=cpu, leave --dtype out")
        channels_last, version = False, str(onnxruntime().__version__)
    if engine == "compile":
        _check_compiler(place)
    return Device(
        name=_name(place),
        kind=place.type,
        threads=torch.get_num_threads() if place.type == "cpu" else None,
        engine=engine,
        version=version,
        dtype=dtype,
        batch=batch,
        channels_last=channels_last,
    )


def is_local(device: Device, place: torch.device) -> bool:
    """Tell whether a device is this machine, working on `place`."""
    place = place_of(device, place)
    return device.engine != "imported" and (_name(place), place.type) == (device.name, device.kind)


def place_of(device: Device, place: torch.device) -> torch.device:
    """Return where networks of a device run on this machine: a search on a GPU may be for its CPU."""
    return torch.device("cpu") if device.kind == "cpu" else place


def _check_compiler(place: torch.device) -> None:
    """Raise UsageError if torch.compile cannot make code for this machine."""
    try:
        torch.compile(torch.nn.ReLU())(torch.zeros(1, device=place))
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError(f"--engine compile: torch.compile does not work here ({reason})") from None


def _name(place: torch.device) -> str:
    """Return the name of the GPU, or of the processor."""
    return torch.cuda.get_device_name(place) if place.type == "cuda" else _processor()


def _processor() -> str:
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
