"""The stages: commands on a tiny recipe that saves after every step, and those that make what they need."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

NAME = "tiny"
RECIPE = """
format: autoslim.recipe/1
model: {name: autoslim/cifar_resnet, args: {depth: 8, in_channels: 1, width: 8}, input: [1, 8, 8], classes: 10}
data: {name: digits, holdout: 150, limit: 600, augment: {crop: pad, padding: 1, flip: true}}
space: {groups: 6, divisor: 2}
supernet: {width: 1.5, min_width: 0.25}
train: {epochs: 3, batch: 64, lr: 0.5, keep: best, ema: 0.5, keep_states: 2, save_minutes: 0.00001}
calibrate: {images: 256, batch: 128}
search: {batch: 75}
retrain: {epochs: 3, batch: 64, lr: 0.5, keep: best, schedule: cosine, save_minutes: 0.00001}
device: cpu
"""
HERE = ("-r", NAME)
SUPERNET = ["train-supernet", *HERE]
SEARCH = ["search", "--flops", "60%,30%", *HERE]
DECODED = ["data.name=image-folder", "data.path=../images", "data.memory=0", "data.workers=1", "data.limit=null"]
ARCHS = [f"{NAME}/arch-60pct.json", f"{NAME}/arch-30pct.json"]


@dataclass(frozen=True)
class Stage:
    """A command, and those that make what it needs."""

    command: list[str]
    after: tuple[list[str], ...] = ()
    resume: tuple[str, ...] = ("--resume",)


STAGES = {
    "train-supernet": Stage(SUPERNET),
    "calibrate-bn": Stage(["calibrate-bn", "--widths", "0.25:1.5:0.05", *HERE], (SUPERNET,)),
    "search": Stage(SEARCH, (SUPERNET,)),
    "retrain": Stage(["retrain", ARCHS[0]], (SUPERNET, SEARCH)),
    "retrain --joint": Stage(["retrain", *ARCHS, "--joint"], (SUPERNET, SEARCH)),
    "retrain, decoding": Stage(["retrain", "--width", "0.5", *HERE, *DECODED, "data.holdout=60"]),  # by a process more
    "run": Stage(["run", "--flops", "50%", *HERE], resume=()),  # which always goes on
}


def write_images(directory: Path) -> None:
    """Write an image folder: noise of 8x8 pixels, 30 images of each of ten classes, and 3 to test."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 30), ("test", 3)):
        for number in range(10 * count):
            path = directory / part / str(number % 10) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
