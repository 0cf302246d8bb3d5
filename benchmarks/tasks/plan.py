"""What is shown of each task, and where its results lie."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path("benchmarks/results/tasks")
RUNS = Path("runs/tasks")
SEEDS = (0, 1, 2)
SHARES = (50, 25)
"""Budgets, in per cent of the base network's FLOPs, largest first."""
WIDTHS = "0.25:1.5:0.125"
"""Of the supernet, relative to the base network: what one set of weights gives without retraining."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Shown:
    """A task: its recipe, its images and the script that makes them, and its score."""

    recipe: str
    images: Path | None
    """None: the recipe makes its own."""
    script: str
    score: str
    label: str
    times: float = 1.0
    """What a score is multiplied by to be shown: 100 for a fraction."""
    settings: tuple[str, ...] = ()
    """What the recipe is told besides."""
    spectrum: bool = True
    """Whether sub-networks of the supernet are measured as well, without retraining."""
    fine_tuned: bool = False
    """Whether what was found, and one width, are also trained from the supernet's weights."""


TASKS = {
    "super-resolution": Shown(
        "photographs-x2", Path("data/photographs"), "scripts/make_photographs.py", "psnr", "PSNR, dB"
    ),
    "segmentation": Shown(
        "cifar10-scenes", Path("data/scenes"), "scripts/make_scenes.py", "miou", "mean IoU, %", times=100
    ),
    "detection": Shown(
        *("digits-detection", None, "", "ap50", "AP at IoU 0.5, %"),
        times=100,
        settings=("data.args={count: 600}", "data.holdout=100", "train.epochs=6", "retrain.epochs=10"),
        spectrum=False,
    ),
    "segmentation-longer": Shown(
        *("cifar10-scenes", Path("data/scenes"), "scripts/make_scenes.py", "miou", "mean IoU, %"),
        times=100,
        settings=("train.epochs=12", "retrain.epochs=12"),
        spectrum=False,
        fine_tuned=True,
    ),
    "super-resolution-again": Shown(
        *("photographs-x2", Path("data/photographs"), "scripts/make_photographs.py", "psnr", "PSNR, dB"),
        spectrum=False,
        fine_tuned=True,
    ),
}
FINE_TUNED = ", fine-tuned"
"""What the names of such networks end in."""
QUICK = ["data.limit=200", "data.holdout=50", "train.epochs=1", "retrain.epochs=1", "calibrate.images=50"]
QUICK_WIDTHS = "0.5,1.0"


@dataclass(frozen=True)
class Chosen:
    """What this process does."""

    tasks: tuple[str, ...] = tuple(TASKS)
    seeds: tuple[int, ...] = SEEDS
    quick: bool = False

    @property
    def widths(self) -> str:
        """Return the widths of the spectrum."""
        return QUICK_WIDTHS if self.quick else WIDTHS

    def place(self, task: str, seed: int) -> Path:
        """Return the recipe directory of a task and seed."""
        return RUNS.with_name("tasks-quick" if self.quick else RUNS.name) / task / f"seed-{seed}"

    def file(self, task: str) -> Path:
        """Return where a task's rows are appended."""
        return (self.place(task, 0).parents[1] if self.quick else RESULTS) / f"{task}.jsonl"

    def settings(self, task: str, seed: int) -> list[str]:
        """Return what a task's recipe is told besides."""
        shown = TASKS[task]
        path = [f"data.path={shown.images.resolve()}"] if shown.images else []
        return [f"seed={seed}", *path, *shown.settings, *(QUICK if self.quick else [])]


def images_of(task: str) -> Path:
    """Return where a task's images lie. Raises LookupError for one whose recipe makes its own."""
    if not (images := TASKS[task].images):
        raise LookupError(f"{task} has no images on disk")
    return images


def rows_of(path: Path) -> list[Row]:
    """Return the rows of a file; a line that a kill cut short is none."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def add_row(path: Path, row: Row) -> None:
    """Append a row in one write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_bytes() if path.exists() else b""
    cut = b"" if not text or text.endswith(b"\n") else b"\n"  # a kill left half a line
    with path.open("ab", buffering=0) as file:
        file.write(cut + json.dumps(row).encode() + b"\n")


def find(rows: Sequence[Row], **wanted: Any) -> Row | None:
    """Return the first row that has these values."""
    return next((row for row in rows if all(row.get(key) == value for key, value in wanted.items())), None)
