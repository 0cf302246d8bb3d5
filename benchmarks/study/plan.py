"""What the study trains, searches and retrains, and where its results lie."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path("runs/study")
RESULTS = Path("benchmarks/results/study")


@dataclass(frozen=True)
class Base:
    """A base network, and budgets in per cent of its FLOPs, largest first."""

    about: str
    model: dict[str, Any]
    shares: tuple[int, int, int]
    """What every variant of the search is run to; networks of the last are retrained."""
    tight: tuple[int, ...]
    """Further budgets of the variants whose networks are retrained."""
    space: dict[str, int]
    epochs: int = 12
    """Those of the supernet."""
    reference: str = "exact, 2000"
    """The variant that the others are compared with."""

    @property
    def judged(self) -> tuple[int, ...]:
        """Return the budgets at which networks are retrained."""
        return (self.shares[-1], *self.tight)


RESNET = "ResNet-14 with a stem of stride 2"
NINE_UNITS = {"groups": 12, "divisor": 2}
BASES = {
    "doubling": Base(
        RESNET,
        {"name": "autoslim/cifar_resnet", "args": {"depth": 14, "stem_stride": 2}},
        (75, 50, 25),
        (12, 5),
        NINE_UNITS,
    ),
    # One width for all fills these budgets to within 5 %.
    "flat": Base(
        RESNET,
        {"name": "autoslim/cifar_resnet", "args": {"depth": 14, "stem_stride": 2, "width": 24, "growth": 1}},
        (70, 57, 26),
        (12, 7),
        NINE_UNITS,
    ),
    # Many units; too many for the exact search.
    "mobilenet": Base(
        "MobileNetV2",
        {"name": "torchvision/mobilenet_v2", "args": {"dropout": 0.0}, "strides": {"features.14.conv.1.0": 1}},
        (75, 50, 33),
        (),
        {"groups": 10, "divisor": 8},
        epochs=8,
        reference="default",
    ),
}
"""The ResNet's own widths, twice as wide at every stage; a network as wide at all of them; one of 25 units."""
SEARCHED, FRESH = 5000, 5000
BATCH = 1000
RECIPE = """\
format: autoslim.recipe/1
about: {about} on CIFAR-10 images, for the study of searches
seed: {seed}
model: {model}
data:
  name: image-folder
  path: ../../../data/cifar10-jpeg
  holdout: 10000
  mean: [0.4914, 0.4822, 0.4465]
  std: [0.2470, 0.2435, 0.2616]
  augment: {{crop: pad, padding: 4, flip: true}}
space: {space}
supernet: {{width: 1.5, min_width: 0.15, samples: 4}}
train: {{epochs: {epochs}, batch: 128, lr: 0.1, weight_decay: 5.0e-4, warmup: 0.1}}
calibrate: {{images: 4000, batch: 1000}}
search: {{batch: 1000}}
retrain: {{epochs: 12, batch: 128, lr: 0.1, weight_decay: 5.0e-4, warmup: 0.1}}
"""
REFERENCE = "exact, 2000"
EXACT = {"strategy": "exact", "images": 2000, "per_flop": False, "fill": 0.0}
BASELINE = {
    "strategy": "lazy",
    "images": 2000,
    "refresh": 20,
    "screen": 1.0,
    "among": 2,
    "stride": 0.0,
    "per_flop": False,
    "fill": 0.0,
}
SCREENED = {**BASELINE, "screen": 0.25}
DEFAULT = {"strategy": "lazy", "images": 2000}
VARIANTS: dict[str, dict[str, Any]] = {
    # What every candidate at every step gives, by images per score.
    "exact, 500": {**EXACT, "images": 500},
    REFERENCE: EXACT,
    "exact, 500 anew": {**EXACT, "images": 500, "draw": "anew"},
    # Fewer evaluations.
    "lazy": BASELINE,
    "lazy, one at a time": {**BASELINE, "among": 1},
    "lazy, three at a time": {**BASELINE, "among": 3},
    "lazy, refresh 5": {**BASELINE, "refresh": 5},
    "lazy, refresh 40": {**BASELINE, "refresh": 40},
    "lazy, no refresh": {**BASELINE, "among": 1, "refresh": 1000},
    "lazy, screened": SCREENED,
    "lazy, screened, one at a time": {**SCREENED, "among": 1},
    "lazy, screened, refresh 10": {**SCREENED, "refresh": 10},
    "lazy, screened, refresh 5, one at a time": {**SCREENED, "refresh": 5, "among": 1},
    "lazy, screened on a tenth, refresh 5, one at a time": {**SCREENED, "refresh": 5, "among": 1, "screen": 0.1},
    # Images.
    "lazy, 500": {**BASELINE, "images": 500},
    "lazy, 5000": {**BASELINE, "images": 5000},
    "lazy, 500 anew": {**BASELINE, "images": 500, "draw": "anew"},
    "lazy, 2000 anew": {**BASELINE, "draw": "anew"},
    # Score and finish.
    "lazy, top1": {**BASELINE, "score": "top1"},
    "lazy, per FLOP": {**BASELINE, "per_flop": True},
    "lazy, 2000 anew, per FLOP": {**BASELINE, "draw": "anew", "per_flop": True},
    "exact, 2000, per FLOP": {**EXACT, "per_flop": True},
    "lazy, per FLOP, screened": {**SCREENED, "per_flop": True},
    "lazy, per FLOP, screened on a tenth, refresh 5, one at a time": {
        **SCREENED,
        "per_flop": True,
        "refresh": 5,
        "screen": 0.1,
        "among": 1,
    },
    "default": DEFAULT,
    "one unit a step": {**DEFAULT, "stride": 0.0},
    "stride 0.05": {**DEFAULT, "stride": 0.05},
    "stride 0.2": {**DEFAULT, "stride": 0.2},
    "lazy, pace 0.002": {**BASELINE, "pace": 0.002},
    "lazy, filled": {**BASELINE, "fill": 0.98},
    "lazy, refine": {**BASELINE, "refine": 10},
    # What a search must beat.
    "random, best of 100": {"strategy": "random", "images": 2000, "draws": 100},
    "uniform": {"strategy": "uniform", "images": 2000},
}
RETRAINED = ("uniform", "stride 0.05", "default", "lazy", "lazy, per FLOP", "random, best of 100", REFERENCE)
"""Variants whose networks are retrained, the most wanted first."""
TRAININGS = 2
"""How many times the network of a supernet is retrained, each from its own seed."""
RANDOM = 12
"""How many random networks are retrained for each budget, on the first seed alone."""
OWN = "12 epochs"
"""The study's own supernet."""
BUDGET_AWARE = "12 epochs, budget-aware"
WARM = "4 epochs, warm start"
"""Starts from the base network, which trains as what is found, without the holdout."""
OTHERS = {
    "4 epochs": ["train.epochs=4"],
    "4 epochs, one width for all units": ["train.epochs=4", "supernet.sampling=uniform"],
    "4 epochs, no distillation": ["train.epochs=4", "supernet.distill=false"],
    "4 epochs, 1.0x": ["train.epochs=4", "supernet.width=1.0"],
    "4 epochs, floor of 0.3x": ["train.epochs=4", "supernet.min_width=0.3"],
    WARM: ["train.epochs=4"],
    BUDGET_AWARE: ["supernet.sampling=budget"],
}
"""Supernets that are trained otherwise, and how."""


@dataclass
class Chosen:
    """The base network that the stages work on."""

    name: str = "doubling"

    @property
    def base(self) -> Base:
        """Return the base network."""
        return BASES[self.name]

    @property
    def place(self) -> Path:
        """Return where everything made of it lies."""
        return HERE if self.name == "doubling" else HERE.with_name(f"{HERE.name}-{self.name}")


CHOSEN = Chosen()


def shares_of(variant: str) -> tuple[int, ...]:
    """Return the budgets of a variant, largest first."""
    base = CHOSEN.base
    return base.shares + base.tight if variant in RETRAINED and variant != REFERENCE else base.shares


def place(seed: int) -> Path:
    """Return the recipe directory of a seed, made if it is not there."""
    directory = CHOSEN.place / f"seed-{seed}"
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / "recipe.yaml").exists():
        base = CHOSEN.base
        model, space = json.dumps({**base.model, "input": [3, 32, 32], "classes": 10}), json.dumps(base.space)
        (directory / "recipe.yaml").write_text(
            RECIPE.format(about=base.about, seed=seed, model=model, space=space, epochs=base.epochs)
        )
    return directory


def open_seed(seed: int, other: str | None = None, training: int | None = None) -> Any:
    """Open the recipe of a seed, of a supernet that is trained otherwise, or for a training from another seed."""
    from autoslim_cli.cli.options import open_recipe

    if other is None:
        return open_recipe(str(place(seed)), () if training is None else (f"seed={training}",))
    directory = place(seed).with_name(f"seed-{seed}-{list(OTHERS).index(other)}")
    directory.mkdir(exist_ok=True)
    (directory / "recipe.yaml").write_text((place(seed) / "recipe.yaml").read_text())
    base = json.dumps(yaml.safe_load((directory / "recipe.yaml").read_text())["retrain"])
    return open_recipe(str(directory), [*OTHERS[other], *([f"base={base}"] if other == WARM else [])])


def results(seed: int, name: str) -> Path:
    """Return where rows of a kind are kept."""
    return RESULTS / CHOSEN.name / f"seed-{seed}" / name


def rows_of(seed: int, name: str) -> list[dict[str, Any]]:
    """Return the lines of one of a seed's result files."""
    path = results(seed, name)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def found_rows(seed: int, other: str = OWN) -> list[dict[str, Any]]:
    """Return what was found on a seed's supernet."""
    return [row for row in rows_of(seed, "found.jsonl") if row["other"] == other]


def add_row(seed: int, name: str, row: dict[str, Any]) -> None:
    """Add a line to one of a seed's result files."""
    path = results(seed, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps({key: value for key, value in row.items() if key != "channels"}), flush=True)
