"""Write a network for deployment, in formats that load without autoslim, and check what was written."""

import copy
import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from autoslim_cli.cost.closed_form import flops, params
from autoslim_cli.errors import AutoslimError, UsageError, advice_on_memory, is_out_of_memory
from autoslim_cli.files.atomic import write_bytes
from autoslim_cli.latency.onnx_file import onnx_outputs, onnxruntime
from autoslim_cli.models.trust import Trust, build_named_by
from autoslim_cli.network.fold_bn import with_bn_folded
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.schema import ModelSettings
from autoslim_cli.stages.evaluate import trained_model, untrained_model

Form = Literal["onnx", "torch-export", "state-dict"]

CLOSE = 1e-3
"""The largest difference between the file's outputs and the network's, against the largest output."""

SUFFIXES: dict[Form, str] = {"onnx": ".onnx", "torch-export": ".pt2", "state-dict": ".state.pt"}
IMAGES = 3
"""Images of the check, where a batch may have any number: another one than the file was made with."""


class Size(TypedDict):
    """What a network costs: multiply-adds of convolutions and linear layers, weights and biases."""

    flops: int
    params: int


class Exported(TypedDict):
    """A file that was written.

    Its path and bytes, the input's shape (a batch of 0: any), whether it is trained, and how far its outputs are from
    the source network's: the largest difference, by itself and against the largest output. `before` is the base
    network, `after` what was written; `folded` counts BN layers that are gone. `loads` are the lines that load it.
    """

    path: str
    format: Form
    input: list[int]
    trained: bool
    bytes: int
    source_bytes: int
    largest_difference: float
    difference: float
    before: Size
    after: Size
    folded: int
    loads: list[str]


def export(path: Path, form: Form, *, batch: int | None = None, fold_bn: bool = False, trust: bool = False) -> Exported:
    """Write a deployable checkpoint, or a channel config with random weights, beside itself in another format.

    Input `input` (batch, channels, height, width), output `logits` (batch, classes), in fp32; without `batch` it takes
    any number of images. With `trust` the file may call code that its recipe does not name. Raises UsageError without,
    or without ONNX, AutoslimError if the network cannot be written so, or the file computes something else.
    """
    if batch is not None and form == "state-dict":
        raise UsageError("--batch is for files that hold a graph: leave it out with --state-dict")
    trained, trusted = path.suffix != ".json", Trust.in_recipe_of(path, anything=trust)
    source, config = (trained_model if trained else untrained_model)(path, trusted)
    reading = read(source, *config.model.shapes, part=config.model.trace)
    network, folded = with_bn_folded(reading) if fold_bn else (source, 0)
    with advice_on_memory(f"--batch {batch} is too much for this network: lower it"), torch.inference_mode():
        images = torch.rand(batch or IMAGES, *config.model.input)
        wanted = source(images)
        # 1. Write it in memory; 2. run what was written, and compare; 3. only then is there a file.
        content = _written(form, network, torch.rand(batch or 2, *config.model.input), batch is None)
        given = _RUN[form](content, images, network)
    largest = float((given - wanted).abs().max())
    difference = largest / float(wanted.abs().max().clamp(min=1e-12))
    if not difference <= CLOSE:
        raise AutoslimError(
            f"{path}: outputs of the {form} differ from the network's by {difference:.1%} of the largest: not written; "
            "this network needs an exporter of its own (autoslim_cli.load_model gives it as a plain module)"
        )
    target = path.with_suffix(SUFFIXES[form])
    write_bytes(target, content)
    table, base = reading.table, _base(config.model, path, trusted)
    return {
        "path": str(target),
        "format": form,
        "input": [batch or 0, *config.model.input],
        "trained": trained,
        "bytes": len(content),
        "source_bytes": path.stat().st_size,
        "largest_difference": largest,
        "difference": difference,
        "before": base,
        "after": {"flops": flops(table, table.base), "params": sum(p.numel() for p in network.parameters())},
        "folded": folded,
        "loads": [line.format(path=str(target), input=config.model.input) for line in LOADS[form]],
    }


LOADS: dict[Form, tuple[str, str, str]] = {
    "onnx": (
        "import numpy, onnxruntime",
        "session = onnxruntime.InferenceSession({path!r})",
        'logits = session.run(["logits"], {{"input": numpy.zeros((1, *{input}), "float32")}})[0]',
    ),
    "torch-export": (
        "import torch",
        "network = torch.export.load({path!r}).module()",
        "logits = network(torch.zeros(1, *{input}))",
    ),
    "state-dict": (
        "import torch",
        "tensors = torch.load({path!r}, weights_only=True)",
        "widths = {{name: len(tensor) for name, tensor in tensors.items() if tensor.dim() > 1}}",
    ),
}
"""Lines that load each format where autoslim is not installed."""


def _base(model: ModelSettings, path: Path, trust: Trust) -> Size:
    """Return what the base network costs."""
    table = read(build_named_by(path, model, trust), *model.shapes, part=model.trace).table
    return {"flops": flops(table, table.base), "params": params(table, table.base)}


def _written(form: Form, network: nn.Module, images: Tensor, any_batch: bool) -> bytes:
    """Write a network in memory. Raises AutoslimError if the format cannot hold it."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings(), torch.inference_mode(mode=False), torch.no_grad():
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            return _WRITTEN[form](network, images.clone(), any_batch)
    except AutoslimError:
        raise
    except Exception as error:  # exporters raise whatever they meet
        if is_out_of_memory(error):
            raise
        reason = next(iter(str(error).splitlines()), "")
        words = "; a batch of one size may do: --batch 1" if any_batch and form != "state-dict" else ""
        raise AutoslimError(
            f"this network cannot be written as {form} ({type(error).__name__}: {reason}){words}"
        ) from None
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _onnx(network: nn.Module, images: Tensor, any_batch: bool) -> bytes:
    """Write an ONNX file by the current exporter; BN stays as it is."""
    onnxruntime()
    try:
        import onnxscript  # noqa: F401  the exporter needs it
    except ImportError:
        raise UsageError("ONNX needs its libraries: pip install 'autoslim[onnx]'") from None
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"]}
    sizes = ({0: torch.export.Dim("batch")},) if any_batch else None
    program: Any = torch.onnx.export(
        network, (images,), dynamo=True, optimize=False, verbose=False, dynamic_shapes=sizes, **names
    )
    content: bytes = program.model_proto.SerializeToString()
    return content


def _pt2(network: nn.Module, images: Tensor, any_batch: bool) -> bytes:
    """Write a program of torch.export."""
    sizes = ({0: torch.export.Dim("batch")},) if any_batch else None
    file = io.BytesIO()
    torch.export.save(torch.export.export(network, (images,), dynamic_shapes=sizes), file)
    return file.getvalue()


def _state(network: nn.Module, _images: Tensor, _any_batch: bool) -> bytes:
    """Write tensors by name."""
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    return file.getvalue()


def _run_onnx(content: bytes, images: Tensor, _network: nn.Module) -> Tensor:
    return torch.from_numpy(onnx_outputs(content, {"input": np.asarray(images)})[0])


def _run_pt2(content: bytes, images: Tensor, _network: nn.Module) -> Tensor:
    outputs: Tensor = torch.export.load(io.BytesIO(content)).module()(images)
    return outputs


def _run_state(content: bytes, images: Tensor, network: nn.Module) -> Tensor:
    """Run the network with the tensors that were written, and with no others."""
    empty = copy.deepcopy(network)
    for tensor in empty.state_dict().values():
        tensor.zero_()
    empty.load_state_dict(torch.load(io.BytesIO(content), weights_only=True))
    outputs: Tensor = empty(images)
    return outputs


_WRITTEN: dict[Form, Callable[[nn.Module, Tensor, bool], bytes]] = {
    "onnx": _onnx,
    "torch-export": _pt2,
    "state-dict": _state,
}
_RUN: dict[Form, Callable[[bytes, Tensor, nn.Module], Tensor]] = {
    "onnx": _run_onnx,
    "torch-export": _run_pt2,
    "state-dict": _run_state,
}
