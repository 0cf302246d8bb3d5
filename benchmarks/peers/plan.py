"""What is trained, found and compared: base networks, arms, recipes, and where everything lies."""

import json
import os
import random
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

HERE = Path("runs/peers")
RESULTS = Path("benchmarks/results/peers")
IMAGES = Path("data/cifar10-jpeg")
MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]

Row = dict[str, Any]


@dataclass(frozen=True)
class Base:
    """A base network, what it is slimmed to, and how long everything trains."""

    about: str
    model: dict[str, Any]
    space: dict[str, int]
    shares: tuple[int, ...]
    """Budgets, in per cent of its FLOPs, largest first."""
    seeds: tuple[int, ...]
    control_seeds: tuple[int, ...]
    """Those of the control that trains one width with all the compute that we spend."""
    epochs: int = 20
    """Of every final training."""
    base_epochs: int = 20
    supernet_epochs: int = 12
    warm_epochs: int = 12
    """Of a supernet that starts from the trained base network."""
    warm_width: float = 1.0
    """Of that supernet: channels that a trained network does not have are hardly trained in so few epochs."""
    batch: int = 128
    holdout: int = 5000
    calibrate: int = 4000
    """Training images that measure BN statistics, for FastNAS's candidates and for ours."""
    train_images: int = 50_000
    test_images: int = 10_000
    steps: int = 400
    """Of Torch-Pruning, to a pruning ratio of 0.95."""


BASES = {
    "resnet20": Base(
        "ResNet-20 with a stem of stride 2 (10.2M FLOPs)",
        {"name": "autoslim/cifar_resnet", "args": {"depth": 20, "stem_stride": 2}},
        {"groups": 12, "divisor": 2},
        (25, 12),
        (0, 1, 2, 3, 4),
        (0, 1, 2),
    ),
    "mobilenet": Base(
        "MobileNetV2 (11M FLOPs)",
        {"name": "torchvision/mobilenet_v2", "args": {"dropout": 0.0}, "strides": {"features.14.conv.1.0": 1}},
        {"groups": 10, "divisor": 8},
        (33,),
        (0, 1, 2),
        (0,),
    ),
    # Those of benchmarks/study, which settings were tuned on: for trials, not for the proof.
    "flat": Base(
        "ResNet-14 with a stem of stride 2, 24 channels at every stage (7.2M FLOPs)",
        {"name": "autoslim/cifar_resnet", "args": {"depth": 14, "stem_stride": 2, "width": 24, "growth": 1}},
        {"groups": 12, "divisor": 2},
        (26, 12),
        (0, 1, 2),
        (0,),
        epochs=12,
        base_epochs=12,
        warm_epochs=24,
    ),
    "doubling": Base(
        "ResNet-14 with a stem of stride 2 (6.7M FLOPs)",
        {"name": "autoslim/cifar_resnet", "args": {"depth": 14, "stem_stride": 2}},
        {"groups": 12, "divisor": 2},
        (25, 12),
        (0, 1, 2),
        (0,),
        epochs=12,
        base_epochs=12,
        warm_epochs=24,
    ),
    "quick": Base(
        "ResNet-8 with a stem of stride 2, a few images: whether everything runs",
        {"name": "autoslim/cifar_resnet", "args": {"depth": 8, "stem_stride": 2}},
        {"groups": 6, "divisor": 2},
        (25,),
        (0,),
        (0,),
        epochs=2,
        base_epochs=3,
        supernet_epochs=2,
        warm_epochs=1,
        batch=50,
        holdout=400,
        calibrate=400,
        train_images=2000,
        test_images=1000,
        steps=100,
    ),
}

LONGER = "ResNet-14, 24 channels at every stage, its supernet trained twice as long (7.2M FLOPs)"
BASES["flat-long"] = replace(BASES["flat"], about=LONGER, warm_epochs=48)

PROVEN = ["resnet20", "mobilenet"]
"""The base networks of docs/proof.md."""


@dataclass(frozen=True)
class Arm:
    """Channels, and how the network at them is trained."""

    family: str
    source: str
    """Which search found the channels."""
    start: str = "scratch"
    """`scratch`; `supernet`: cut out of it and calibrated; `pruned`: the weights that the peer hands over."""
    all_compute: bool = False
    """Whether it trains as long as our dearest arm computes, its supernet included."""

    @property
    def name(self) -> str:
        """Return what names it in rows and files."""
        return "-".join([self.source, self.start, *["all-compute"] * self.all_compute])

    @property
    def needs(self) -> tuple[str, ...]:
        """Return what is trained before it."""
        base = self.source in PEERS
        supernet = self.source in ("ours", "random") or (self.source == "one-width" and self.start == "supernet")
        return (*["base"] * base, *["supernet"] * supernet, *["warm"] * self.is_warm)

    @property
    def is_warm(self) -> bool:
        """Return whether it works on the supernet that starts from a trained base network."""
        return self.source.startswith("warm")

    @property
    def is_one_width(self) -> bool:
        """Return whether its channels are the widest that fit, which takes no search."""
        return self.source.endswith("one-width")


PEERS = {
    "torch-pruning-l2": "torch-pruning",
    "torch-pruning-taylor": "torch-pruning",
    "fastnas": "fastnas",
}
"""Sources that are other people's tools, and which."""
TOOLS = {
    "torch-pruning": ("PEERS_TORCH_PRUNING_PYTHON", "torch_pruning"),
    "fastnas": ("PEERS_FASTNAS_PYTHON", "modelopt.torch.prune.fastnas"),
}
"""The environment variable that names a tool's python (this one by default), and the module that must be there."""

OURS = "ours"
OUR_WEIGHTS = "one width, our weights"
"""A control: what our supernets' weights are worth without a search."""
ARMS = (
    Arm("one width", "one-width"),
    Arm(OURS, "ours"),
    Arm(OURS, "ours", "supernet"),
    Arm(OURS, "warm", "supernet"),
    Arm("torch-pruning", "torch-pruning-l2", "pruned"),
    Arm("fastnas", "fastnas", "pruned"),
    Arm(OUR_WEIGHTS, "warm-one-width", "supernet"),
    Arm("torch-pruning", "torch-pruning-l2"),
    Arm("fastnas", "fastnas"),
    Arm("random", "random"),
    Arm(OUR_WEIGHTS, "one-width", "supernet"),
    Arm("torch-pruning", "torch-pruning-taylor"),
    Arm("torch-pruning", "torch-pruning-taylor", "pruned"),
    Arm("one width, all our compute", "one-width", all_compute=True),
)
"""The most wanted first."""
DEAREST = Arm(OURS, "ours", "supernet")
"""Whose compute the control of one width gets."""
SOURCES = tuple(dict.fromkeys(arm.source for arm in ARMS))


@dataclass
class Chosen:
    """The base network that the stages work on, its seeds, and which of its jobs are this process's."""

    name: str = "resnet20"
    seeds: list[int] = field(default_factory=list)
    arms: list[str] = field(default_factory=list)
    shard: int = 0
    shards: int = 1

    @property
    def base(self) -> Base:
        """Return the base network."""
        return BASES[self.name]

    @property
    def wanted(self) -> list[Arm]:
        """Return the arms that were asked for, all by default."""
        return [arm for arm in ARMS if not self.arms or arm.name in self.arms]

    def place(self, seed: int, *parts: str) -> Path:
        """Return a place under a seed's directory."""
        return HERE.joinpath(self.name, f"seed-{seed}", *parts)

    def file(self, kind: str) -> Path:
        """Return where rows of a kind (trained, found, final, speed) are appended."""
        return (HERE / self.name if self.name == "quick" else RESULTS / self.name) / f"{kind}.jsonl"


def rows_of(path: Path) -> list[Row]:
    """Return the rows of a file; a line that a kill cut short is none."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def add_row(path: Path, row: Row) -> None:
    """Append a row in one write, so that processes may share a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_bytes() if path.exists() else b""
    cut = b"" if not text or text.endswith(b"\n") else b"\n"  # a kill left half a line
    with path.open("ab", buffering=0) as file:
        file.write(cut + json.dumps(row).encode() + b"\n")


def find(rows: list[Row], **wanted: Any) -> Row | None:
    """Return the first row that has these values."""
    return next((row for row in rows if all(row.get(key) == value for key, value in wanted.items())), None)


def config_text(model: Row, channels: dict[str, int], source: str) -> str:
    """Return a channel config of a network's model section, its counts, and where they come from."""
    config = {"format": "autoslim.channels/1", "model": model, "channels": channels, "source": source}
    return json.dumps(config, indent=2) + "\n"


def write_recipe(chosen: Chosen, seed: int, part: str, **changes: dict[str, Any]) -> Path:
    """Write the recipe of one part of a seed's work; return its directory. `changes`: values by section."""
    base = chosen.base
    directory = chosen.place(seed, part)
    directory.mkdir(parents=True, exist_ok=True)
    training = {"batch": base.batch, "lr": 0.1, "weight_decay": 5e-4, "warmup": 0.1}
    recipe: dict[str, Any] = {
        "format": "autoslim.recipe/1",
        "about": f"{base.about} on CIFAR-10 images, beside other tools",
        "seed": seed,
        "model": {**base.model, "input": [3, 32, 32], "classes": 10},
        "data": {
            "name": "image-folder",
            "path": os.path.relpath(views(chosen, seed) / "whole", directory),
            "holdout": base.holdout,
            "mean": MEAN,
            "std": STD,
            "augment": {"crop": "pad", "padding": 4, "flip": True},
        },
        "space": base.space,
        "supernet": {"width": 1.5, "min_width": 0.15, "samples": 4},
        "train": {"epochs": base.supernet_epochs, **training},
        "calibrate": {"images": base.calibrate, "batch": min(1000, base.calibrate)},
        "search": {"batch": min(1000, base.holdout)},
        "retrain": {"epochs": base.epochs, **training},
    }
    for section, values in changes.items():
        recipe[section] = {**recipe[section], **values}
    (directory / "recipe.yaml").write_text(json.dumps(recipe, indent=2) + "\n")
    return directory


def views(chosen: Chosen, seed: int) -> Path:
    """Return image folders of links: `whole`; `known` and `held`, which part its training images by seed."""
    base, place = chosen.base, chosen.place(seed, "images")
    if (place / "ready").exists():
        return place
    rng = random.Random(seed)
    kept = {}
    for part, most in (("train", base.train_images), ("test", base.test_images)):
        files = sorted(IMAGES.resolve().joinpath(part).glob("*/*"))
        rng.shuffle(files)
        kept[part] = files[:most]
    training = kept["train"]
    links = {
        "whole": training,
        "held": training[: base.holdout],
        "known": training[base.holdout :],
    }
    for view, files in links.items():
        for part, some in (("train", files), ("test", kept["test"])):
            for file in some:
                link = place / view / part / file.parent.name / file.name
                link.parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileExistsError):  # of an earlier run, or of a process beside this one
                    link.symlink_to(file)
    (place / "ready").touch()
    return place
