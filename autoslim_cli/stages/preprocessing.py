"""Say how an image becomes the input of a network that is deployed, and which output is which class."""

import json
from collections.abc import Mapping
from typing import Any, TypedDict

from autoslim_cli.data.transforms import shown_size
from autoslim_cli.files.learned import learned_from
from autoslim_cli.recipe.schema import DATA, ModelSettings

EXTRA_FILE = "autoslim.json"
"""Where a program of torch.export holds `preprocessing` and `class_names`."""
_COLOURS = {1: "grey", 3: "RGB"}
_FITTED = ("classification", "multi-label", "segmentation")


class Preprocessing(TypedDict):
    """How an image becomes an input.

    `size` (channels, height, width) and `layout`; `channels` and their order. Pixels are floats in `range`, less
    `mean`, divided by `std`, of each channel. An image of another size is first resized, in proportion, to just cover
    `resize` (height, width), bilinearly with antialiasing; its centre is the input. What is not known, as of a data
    set of one's own, is None.
    """

    size: list[int]
    layout: str
    channels: str | None
    range: list[float] | None
    mean: list[float] | None
    std: list[float] | None
    resize: list[int] | None


def preprocessing(model: ModelSettings, facts: Mapping[str, Any]) -> tuple[Preprocessing, list[str]]:
    """Return how images become inputs, and class names in the order of the outputs, by a checkpoint's facts.

    A channel config has no facts: its network learned from no images.
    """
    learned = learned_from(facts)
    channels, height, width = model.input
    mean, std = (learned.mean, learned.std) if learned else (None, None)
    recipe = facts.get("made_from", {}).get("recipe", {})
    built_in = recipe.get("data", {}).get("name") in DATA
    fitted = built_in and recipe.get("task", {}).get("name", _FITTED[0]) in _FITTED
    known: Preprocessing = {
        "size": [*model.input],
        "layout": "NCHW",
        "channels": _COLOURS.get(channels) if built_in else None,
        "range": [0.0, 1.0] if mean and std else None,
        "mean": _of_each(mean, channels),
        "std": _of_each(std, channels),
        "resize": [*shown_size(height, width)] if fitted else None,
    }
    return known, learned.class_names if learned else []


def _of_each(values: list[float] | None, channels: int) -> list[float] | None:
    """Return a value for each channel, of which one may stand for all."""
    return values * channels if values and len(values) == 1 else values


def as_metadata(known: Preprocessing, class_names: list[str]) -> dict[str, str]:
    """Return what is known as ONNX has it, texts by key: `input_size`, `input_mean` and so on, `class_names`."""
    said = {**{f"input_{key}": value for key, value in known.items()}, "class_names": class_names}
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in said.items()
        if value
    }


def as_extra_file(known: Preprocessing, class_names: list[str]) -> dict[str, str]:
    """Return what is known as a program of torch.export has it, one file of JSON."""
    return {EXTRA_FILE: json.dumps({"preprocessing": known, "class_names": class_names})}


def in_words(known: Preprocessing) -> str:
    """Say for a person how an image becomes an input."""
    size, mean, std = ("x".join(map(str, known["size"])), known["mean"], known["std"])
    words = [" ".join(filter(None, [known["layout"], size, known["channels"]]))]
    if mean and std:
        words.append(f"pixels in [0, 1], less {mean}, divided by {std}")
    if resize := known["resize"]:
        height, width = resize
        words.append(f"other sizes: resized to cover {height}x{width}, and the centre taken")
    return "; ".join(words)
