"""Run modules by an engine: eager PyTorch, torch.compile or ONNX Runtime."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoslim_cli.errors import AutoslimError
from autoslim_cli.latency.onnx_file import onnx_bytes, onnx_session
from autoslim_cli.latency.table import Device

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Run:
    """A module that is ready to be called on some tensors."""

    call: Callable[[], object]
    inputs: Sequence[Tensor]

    def __call__(self) -> object:
        """Run it."""
        return self.call()


def load(module: nn.Module, inputs: Sequence[Tensor], device: Device, place: torch.device) -> Run:
    """Return a call that runs a module in eval mode on some tensors, by the engine that a device describes."""
    if device.engine == "onnxruntime":
        return _by_onnxruntime(module, inputs, device)
    dtype = DTYPES[device.dtype]
    module = module.eval().to(place, dtype)
    tensors = [tensor.to(place, dtype if tensor.is_floating_point() else tensor.dtype) for tensor in inputs]
    if device.channels_last:
        module = module.to(memory_format=torch.channels_last)
        tensors = [t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for t in tensors]
    forward: Callable[..., object] = torch.compile(module, dynamic=False) if device.engine == "compile" else module
    return Run(lambda: forward(*tensors), tensors)


def _by_onnxruntime(module: nn.Module, inputs: Sequence[Tensor], device: Device) -> Run:
    """Return a call that runs a module by ONNX Runtime on the CPU."""
    try:
        written = onnx_bytes(module, inputs)
    except AutoslimError as error:
        raise AutoslimError(f"{error}; --engine eager and compile measure it") from None
    session = onnx_session(written, device.threads or 1)
    # An input of which the module asks the size alone is not in the file.
    feed = {one.name: inputs[int(one.name.removeprefix("x"))].numpy() for one in session.get_inputs()}
    return Run(lambda: session.run(None, feed), inputs)
