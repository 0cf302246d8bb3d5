"""Write a network for deployment, in formats that load without autoslim, and check what was written."""

import copy
import io
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from autoslim_cli.cost.closed_form import flops, params
from autoslim_cli.cost.fvcore_count import Flat
from autoslim_cli.errors import AutoslimError, UsageError, advice_on_memory, install, is_out_of_memory
from autoslim_cli.files.atomic import write_bytes
from autoslim_cli.files.checkpoint import read_any
from autoslim_cli.latency.onnx_file import onnx_outputs, onnxruntime
from autoslim_cli.models.trust import Trust, build_named_by
from autoslim_cli.network.fold_bn import with_bn_folded
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.tensors import tensors_in
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.schema import ModelSettings
from autoslim_cli.stages.evaluate import trained_model, untrained_model
from autoslim_cli.stages.load_lines import LOGITS, Form, input_names, load_lines
from autoslim_cli.stages.preprocessing import Preprocessing, as_extra_file, as_metadata, preprocessing

Notes = Mapping[str, str]
"""What a file says of its network, by name."""

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
    `preprocessing` and `class_names` say what its input and its outputs are; files that hold a graph hold them, too.
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
    preprocessing: Preprocessing
    class_names: list[str]


def export(path: Path, form: Form, *, batch: int | None = None, fold_bn: bool = False, trust: bool = False) -> Exported:
    """Write a deployable checkpoint, or a channel config with random weights, beside itself in another format.

    Input `input` (batch, channels, height, width), output `logits` (batch, classes), in fp32; of several, inputs are
    `input`, `input_1` and so on, outputs go by the network's names for them, or their number. Without `batch` it takes
    any number of images. With `trust` the file may call code that its recipe does not name. Raises UsageError without,
    without ONNX, or for a graph of a detector, AutoslimError if the network cannot be written so, or the file computes
    something else.
    """
    if batch is not None and form == "state-dict":
        raise UsageError("--batch is for files that hold a graph: leave it out with --state-dict")
    trained, trusted = path.suffix != ".json", Trust.in_recipe_of(path, anything=trust)
    source, config = (trained_model if trained else untrained_model)(path, trusted)
    if config.model.trace and form != "state-dict":
        raise UsageError(
            f"{path}: what lies around {config.model.trace} branches on values, which no graph holds: --state-dict "
            "writes its weights, and autoslim_cli.load_model gives it as a plain module"
        )
    reading = read(source, *config.model.shapes, part=config.model.trace)
    network, folded = with_bn_folded(reading) if fold_bn else (source, 0)
    known, class_names = preprocessing(config.model, read_any(path) if trained else {})
    with advice_on_memory(f"--batch {batch} is too much for this network: lower it"), torch.inference_mode():
        images = _images(reading, batch or IMAGES)
        outputs = reading.traced(source)(*images)
        names, wanted = _names(outputs), list(tensors_in(outputs))
        # 1. Write it in memory; 2. run what was written, and compare; 3. only then is there a file.
        content = _written(
            form, network, names, _images(reading, batch or 2), batch is None, _NOTES[form](known, class_names)
        )
        given = _RUN[form](content, images, network, reading)
    if [one.shape for one in given] != [one.shape for one in wanted]:
        raise AutoslimError(f"{path}: outputs of the {form} are of other shapes than the network's: not written")
    pairs = list(zip(given, wanted, strict=True))
    largest = max(float((one - other).abs().max()) for one, other in pairs)
    difference = max(float((one - other).abs().max() / other.abs().max().clamp(min=1e-12)) for one, other in pairs)
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
        "loads": load_lines(form, str(target), config.model.shapes, names, batch=batch or 1),
        "preprocessing": known,
        "class_names": class_names,
    }


def _names(outputs: object) -> list[str]:
    """Return what outputs are called in ONNX files, in their order; of None or a number beside tensors nothing is."""
    if isinstance(outputs, Tensor):
        return [LOGITS]
    if not isinstance(outputs, Mapping | Sequence) or isinstance(outputs, str):
        return []
    parts = outputs.items() if isinstance(outputs, Mapping) else enumerate(outputs)
    nested = [(str(name), _names(part)) for name, part in parts]
    return [name if inner == [LOGITS] else f"{name}.{one}" for name, inner in nested for one in inner]


def _images(reading: Reading, count: int) -> tuple[Tensor, ...]:
    """Return random images, as many for each input."""
    return tuple(torch.rand(count, *shape) for shape in reading.inputs)


def _base(model: ModelSettings, path: Path, trust: Trust) -> Size:
    """Return what the base network costs."""
    table = read(build_named_by(path, model, trust), *model.shapes, part=model.trace).table
    return {"flops": flops(table, table.base), "params": params(table, table.base)}


def _written(
    form: Form, network: nn.Module, names: Sequence[str], images: tuple[Tensor, ...], any_batch: bool, notes: Notes
) -> bytes:
    """Write a network in memory, with notes beside it. Raises AutoslimError if the format cannot hold it."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings(), torch.inference_mode(mode=False), torch.no_grad():
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            return _WRITTEN[form](network, names, tuple(image.clone() for image in images), any_batch, notes)
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


def _onnx(
    network: nn.Module, outputs: Sequence[str], images: tuple[Tensor, ...], any_batch: bool, notes: Notes
) -> bytes:
    """Write an ONNX file by the current exporter, notes as its metadata; BN stays as it is."""
    onnxruntime()
    try:
        import onnxscript  # noqa: F401  the exporter needs it
    except ImportError:
        raise UsageError(f"ONNX needs its libraries; {install('onnx')}") from None
    names: dict[str, Any] = {"input_names": input_names(len(images)), "output_names": list(outputs)}
    program: Any = torch.onnx.export(
        Flat(network),
        images,
        dynamo=True,
        optimize=False,
        verbose=False,
        dynamic_shapes=(_sizes(images),) if any_batch else None,
        **names,
    )
    model = program.model_proto
    for part in (model, model.graph, *model.functions):
        _forget_origins(part)
    for key, value in notes.items():
        model.metadata_props.add(key=key, value=value)
    content: bytes = model.SerializeToString()
    return content


def _forget_origins(part: Any) -> None:
    """Take off what the exporter notes at each node, paths and lines of code: of a small network most of the file."""
    known = part.DESCRIPTOR.fields_by_name
    for field in ("metadata_props", "doc_string"):
        if field in known:
            part.ClearField(field)
    for field in ("node", "value_info", "initializer", "input", "output"):
        for one in getattr(part, field, ()):
            if not isinstance(one, str):  # a node's inputs are names
                _forget_origins(one)


def _sizes(images: tuple[Tensor, ...]) -> tuple[dict[int, torch.export.Dim], ...]:
    """Return the dimensions of inputs that may have any size: one batch for all."""
    batch = torch.export.Dim("batch")
    return tuple({0: batch} for _ in images)


def _pt2(
    network: nn.Module, _outputs: Sequence[str], images: tuple[Tensor, ...], any_batch: bool, notes: Notes
) -> bytes:
    """Write a program of torch.export, notes as its extra files; it gives what the network does, in the same tuples."""
    file = io.BytesIO()
    program = torch.export.export(network, images, dynamic_shapes=_sizes(images) if any_batch else None)
    torch.export.save(program, file, extra_files=dict(notes))
    return file.getvalue()


def _state(
    network: nn.Module, _outputs: Sequence[str], _images: tuple[Tensor, ...], _any_batch: bool, _notes: Notes
) -> bytes:
    """Write tensors by name, and nothing else: networks load them as they are."""
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    return file.getvalue()


def _run_onnx(content: bytes, images: tuple[Tensor, ...], _network: nn.Module, _reading: Reading) -> list[Tensor]:
    feed = dict(zip(input_names(len(images)), map(np.asarray, images), strict=True))
    return [torch.from_numpy(one) for one in onnx_outputs(content, feed)]


def _run_pt2(content: bytes, images: tuple[Tensor, ...], _network: nn.Module, _reading: Reading) -> list[Tensor]:
    return list(tensors_in(torch.export.load(io.BytesIO(content)).module()(*images)))


def _run_state(content: bytes, images: tuple[Tensor, ...], network: nn.Module, reading: Reading) -> list[Tensor]:
    """Run the network, or its part that was read, with the tensors that were written, and with no others."""
    empty = copy.deepcopy(network)
    for tensor in empty.state_dict().values():
        tensor.zero_()
    empty.load_state_dict(torch.load(io.BytesIO(content), weights_only=True))
    return list(tensors_in(reading.traced(empty)(*images)))


_NOTES: dict[Form, Callable[[Preprocessing, list[str]], dict[str, str]]] = {
    "onnx": as_metadata,
    "torch-export": as_extra_file,
    "state-dict": lambda _known, _names: {},
}
_WRITTEN: dict[Form, Callable[[nn.Module, Sequence[str], tuple[Tensor, ...], bool, Notes], bytes]] = {
    "onnx": _onnx,
    "torch-export": _pt2,
    "state-dict": _state,
}
_RUN: dict[Form, Callable[[bytes, tuple[Tensor, ...], nn.Module, Reading], list[Tensor]]] = {
    "onnx": _run_onnx,
    "torch-export": _run_pt2,
    "state-dict": _run_state,
}
