"""Write the lines that load a network where it is deployed, without autoslim."""

from collections.abc import Sequence
from typing import Literal

Form = Literal["onnx", "torch-export", "state-dict"]

LOADS: dict[Form, tuple[str, str, str]] = {
    "onnx": (
        "import numpy, onnxruntime",
        "session = onnxruntime.InferenceSession({path!r})",
        "{first} = session.run({outputs}, {{{feed}}})[0]",
    ),
    "torch-export": (
        "import torch",
        "network = torch.export.load({path!r}).module()",
        "{first} = network({zeros})",
    ),
    "state-dict": (
        "import torch",
        "tensors = torch.load({path!r}, weights_only=True)",
        "widths = {{name: len(tensor) for name, tensor in tensors.items() if tensor.dim() > 1}}",
    ),
}
"""Lines that load each format where autoslim is not installed."""


def load_lines(form: Form, path: str, shapes: Sequence[tuple[int, ...]], names: Sequence[str]) -> list[str]:
    """Return the lines that load a file, with one image's worth of zeros."""
    inputs = zip(input_names(len(shapes)), shapes, strict=True)
    words = {
        "path": path,
        "first": "logits" if len(names) == 1 else "outputs",
        "outputs": '["logits"]' if len(names) == 1 else "None",
        "feed": ", ".join(f'"{name}": numpy.zeros((1, *{shape}), "float32")' for name, shape in inputs),
        "zeros": ", ".join(f"torch.zeros(1, *{shape})" for shape in shapes),
    }
    lines = [line.format(**words) for line in LOADS[form]]
    return lines if len(names) == 1 else [line.removesuffix("[0]") for line in lines]


def input_names(count: int) -> list[str]:
    """Return what inputs are called in ONNX files."""
    return ["input", *(f"input_{number}" for number in range(1, count))]
