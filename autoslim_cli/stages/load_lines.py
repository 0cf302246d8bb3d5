"""Write the lines that load a network where it is deployed, without autoslim."""

import json
from collections.abc import Sequence
from typing import Literal

Form = Literal["onnx", "torch-export", "state-dict"]

LOADS: dict[Form, tuple[str, str, str]] = {
    "onnx": (
        "import numpy, onnxruntime",
        "session = onnxruntime.InferenceSession({path!r})",
        "{outputs} = session.run({names}, {{{feed}}}){first}",
    ),
    "torch-export": (
        "import torch",
        "network = torch.export.load({path!r}).module()",
        "{outputs} = network({zeros})",
    ),
    "state-dict": (
        "import torch",
        "tensors = torch.load({path!r}, weights_only=True)",
        "shapes = {{name: tuple(tensor.shape) for name, tensor in tensors.items()}}",
    ),
}
"""Lines that load each format where autoslim is not installed."""

LOGITS = "logits"
"""What the output of a network that gives one tensor is called."""


def load_lines(
    form: Form, path: str, shapes: Sequence[tuple[int, ...]], names: Sequence[str], *, batch: int = 1
) -> list[str]:
    """Return the lines that load a file, with zeros for so many images; `names` are those of its outputs."""
    inputs = zip(input_names(len(shapes)), shapes, strict=True)
    words = {
        "path": path,
        "outputs": "logits" if list(names) == [LOGITS] else "outputs",
        "names": json.dumps(list(names)) if len(names) == 1 else "None",
        "first": "[0]" if len(names) == 1 else "",
        "feed": ", ".join(f'"{name}": numpy.zeros(({batch}, *{shape}), "float32")' for name, shape in inputs),
        "zeros": ", ".join(f"torch.zeros({batch}, *{shape})" for shape in shapes),
    }
    return [line.format(**words) for line in LOADS[form]]


def input_names(count: int) -> list[str]:
    """Return what inputs are called in ONNX files."""
    return ["input", *(f"input_{number}" for number in range(1, count))]
