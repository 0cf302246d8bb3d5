"""Write a network for deployment: `autoslim export --onnx`."""

from pathlib import Path
from typing import TypedDict

import torch

from autoslim_cli.errors import AutoslimError, advice_on_memory
from autoslim_cli.files.atomic import write_bytes
from autoslim_cli.latency.onnx_file import onnx_bytes, onnx_outputs
from autoslim_cli.stages.evaluate import load_model, untrained_model

CLOSE = 1e-3
"""The largest difference between the file's outputs and the network's, against the largest output."""


class Exported(TypedDict):
    """A file that was written.

    Its path and bytes, the input's shape, whether it is trained, and how far its outputs are from PyTorch's, against
    the largest of them.
    """

    path: str
    input: list[int]
    trained: bool
    bytes: int
    difference: float


def export_onnx(path: Path, *, batch: int) -> Exported:
    """Write `FILE.onnx` beside a deployable checkpoint or a channel config, whose weights are then random.

    Input `input` (batch, channels, height, width), output `logits` (batch, classes), in fp32; BN is folded into
    convolutions. Raises UsageError without ONNX, AutoslimError if the file computes something else.
    """
    trained = path.suffix != ".json"
    network, config = load_model(path) if trained else untrained_model(path)
    with advice_on_memory(f"--batch {batch} is too much for this network: lower it"):
        images = torch.rand(batch, *config.model.input)
        content = onnx_bytes(network, [images], inputs=["input"], outputs=["logits"])
        with torch.inference_mode():
            wanted = network(images)
        (given,) = onnx_outputs(content, {"input": images.numpy()})
    difference = float((torch.from_numpy(given) - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))
    if not difference <= CLOSE:
        raise AutoslimError(
            f"{path}: ONNX Runtime's outputs differ from PyTorch's by {difference:.1%} of the largest: not written; "
            "this network needs an exporter of its own (autoslim_cli.load_model gives it as a plain module)"
        )
    target = path.with_suffix(".onnx")
    write_bytes(target, content)
    return {
        "path": str(target),
        "input": list(images.shape),
        "trained": trained,
        "bytes": len(content),
        "difference": difference,
    }
