"""Write modules as ONNX files, and open them with ONNX Runtime on the CPU."""

import io
import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from autoslim_cli.errors import AutoslimError, UsageError, install, is_out_of_memory

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def onnxruntime() -> ModuleType:
    """Return the library. Raises UsageError if it, or what writes its files, is not installed."""
    try:
        import onnx  # noqa: F401  the exporter needs it
        import onnxruntime as library
    except ImportError:
        raise UsageError(f"ONNX needs its libraries; {install('onnx')}") from None
    module: ModuleType = library
    return module


def onnx_bytes(
    module: nn.Module,
    tensors: Sequence[Tensor],
    *,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    what: str = "this network",
) -> bytes:
    """Return a module as an ONNX file, with BN folded into convolutions. Inputs are x0, x1, ... unless they are named.

    `what` it is, errors say. Raises UsageError without the library, AutoslimError if an operation has no counterpart in
    ONNX.
    The exporter by tracing is a hundred times faster than the one by torch.export: hundreds of layers are written.
    """
    onnxruntime()
    file = io.BytesIO()
    names = inputs or [f"x{number}" for number in range(len(tensors))]
    export: Any = torch.onnx.export  # its types do not know that this exporter writes to files in memory
    module = module.cpu().float().eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            export(module, tuple(tensors), file, input_names=names, output_names=outputs, dynamo=False)
        except Exception as error:  # the exporter raises whatever it meets
            if is_out_of_memory(error):
                raise
            reason = next(iter(str(error).splitlines()), "")
            raise AutoslimError(f"{what} cannot be written as ONNX ({type(error).__name__}: {reason})") from None
    return file.getvalue()


def onnx_session(model: bytes, threads: int | None = None) -> "InferenceSession":
    """Open an ONNX file on some threads of the CPU, or as many as the library takes. Raises UsageError without it."""
    library = onnxruntime()
    options = library.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Threads of a session that has answered would spin on, and slow down the one that is timed next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return library.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def onnx_outputs(model: bytes, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Return what ONNX Runtime makes of some arrays by name. Raises UsageError without the library."""
    return list(onnx_session(model).run(None, dict(feed)))
