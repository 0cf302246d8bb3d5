"""Name the files in a recipe's directory, and read from a name what it says: `model-width-0.5-from-supernet`."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from autoslim_cli.files.atomic import file_name
from autoslim_cli.files.measures import MEASURES, option, written

SUPERNET = "supernet"
SUPERNET_FILE = f"{SUPERNET}.safetensors"
CONFIGS, MODELS, TABLES = "arch-*.json", "model-*.safetensors", "latency-*.json"
"""Patterns of the channel configs that searches write, of networks that were retrained, and of latency tables."""

SCRATCH, WEIGHTS = "scratch", "weights"
"""What a training starts from, as `retrain.start` says it, beside the supernet; all else is a file."""

_JOINT, _FROM, _METRICS, _STATE, _ASIDE = "-joint", "-from-", ".metrics.jsonl", ".resume.pt", ".old-"
_PER_CENT = "pct"


def relative(path: Path, directory: Path) -> str:
    """Return a path as seen from a directory; on another of Windows' drives, to which none leads, the path itself."""
    try:
        return os.path.relpath(path, directory)
    except ValueError:
        return str(path)


# 1. Files.


def config_file(label: str) -> str:
    """Name the channel config of what is called so: `arch-300M.json`."""
    return CONFIGS.replace("*", label)


def config_name(path: Path) -> str:
    """Return what the files that are made from a config are called after: `arch-300M.json` is `300M`."""
    return path.stem.removeprefix("arch-")


def model_stem(name: str) -> str:
    """Name a network that is retrained, and all files of its training: `model-300M`.

    What is made from a config that was kept, `arch-300M.old-1.json`, was not kept itself: `model-300M-old-1`.
    """
    return f"model-{file_name(name.replace(_ASIDE, _ASIDE.replace('.', '-')))}"


def model_file(name: str) -> str:
    """Name the file of a network that was retrained: `model-300M.safetensors`."""
    return MODELS.replace("model-*", model_stem(name))


def subnet_file(name: str) -> str:
    """Name the file of a sub-network that was cut out of a supernet: `subnet-300M.safetensors`."""
    return f"subnet-{name}.safetensors"


def network_name(path: Path) -> str:
    """Return what a plain network is called, by its file's name, a retrained one or one that was cut out."""
    return re.sub("^(model|subnet)-", "", path.stem)


def table_file(device: str) -> str:
    """Name a device's latency table: `latency-cpu-2-threads.json`."""
    return TABLES.replace("*", file_name(device))


def device_of(table: Path) -> str:
    """Return what the device of a latency table is called, by its file's name."""
    return table.stem.removeprefix("latency-")


def state_file(stem: str) -> str:
    """Name what a training continues from: `model-300M.resume.pt`."""
    return stem + _STATE


def metrics_file(stem: str) -> str:
    """Name how a training went: `model-300M.metrics.jsonl`."""
    return stem + _METRICS


def trained_in(path: Path) -> str:
    """Return what is trained, by the name of the file that it continues from, or that says how it went."""
    return path.name.removesuffix(_STATE).removesuffix(_METRICS)


def aside(path: Path, number: int) -> Path:
    """Return where a file is kept that another one replaces: `model-300M.old-1.safetensors`."""
    return path.with_name(f"{path.stem}{_ASIDE}{number}{path.suffix}")


def is_aside(path: Path) -> bool:
    """Tell whether a file was kept so."""
    return re.search(rf"{re.escape(_ASIDE)}\d+$", path.stem) is not None


# 2. What networks and configs are called.


@dataclass(frozen=True)
class Asked:
    """What a label says of a budget: bounds by measure, as people write them, and whose latency they bound."""

    bounds: Mapping[str, str]
    device: str = ""


def budget_label(bounds: Mapping[str, str], device: str = "") -> str:
    """Name what is found for a budget: 300M, params-2M, 300M-params-2M, latency-12ms-pixel."""
    parts = [part for measure, text in bounds.items() for part in (*_words(measure), text.replace("%", _PER_CENT))]
    return "-".join([*parts, *([file_name(device)] if device else [])])


def budget_of(label: str) -> Asked | None:
    """Return the budget that a label says; None for a name that is no label."""
    rest, bounds = label.split("-"), dict[str, str]()
    for measure, kind in MEASURES.items():
        words = _words(measure)
        if rest[: len(words)] != words or len(rest) == len(words):
            continue
        text = rest[len(words)].replace(_PER_CENT, "%")
        if (read := kind.read(text)) and written(*read) == text:
            bounds[measure], rest = text, rest[len(words) + 1 :]
    asked = Asked(bounds, "-".join(rest))
    if not bounds or (rest and "latency" not in bounds) or budget_label(asked.bounds, asked.device) != label:
        return None
    return asked


def _words(measure: str) -> list[str]:
    """Return what says in a label which measure is bounded: nothing for FLOPs."""
    return [] if measure == "flops" else option(measure).removeprefix("--").split("-")


def width_name(width: float) -> str:
    """Name what belongs to a width: `width-0.5`."""
    return f"width-{width:g}"


def width_of(name: str) -> float | None:
    """Return the width that a name says; None if it says none."""
    text = name.removeprefix("width-")
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text) and width_name(float(text)) == name else None


def uniform_name(label: str) -> str:
    """Name the uniform network of a budget: `uniform-300M`."""
    return f"uniform-{label}"


def joint_name(name: str) -> str:
    """Name a config's network that is trained with those of others: `300M-joint`."""
    return name + _JOINT


def start_label(start: str) -> str:
    """Return what is said in names of a start, as `retrain.start` names it: nothing of scratch, a file's own name."""
    return "" if start == SCRATCH else Path(start).stem.removeprefix("model-")


def started_name(name: str, start: str) -> str:
    """Name a network by what its training starts from, too: `300M-from-supernet`."""
    return _started(name, start_label(start))


def _started(name: str, label: str) -> str:
    return name + (_FROM + label if label else "")


@dataclass(frozen=True)
class Said:
    """What the name of a retrained network says: a config's name, a width, or a budget that one width fits.

    `start` is what names say of a start, nothing of scratch.
    """

    config: str = ""
    width: float | None = None
    uniform: Asked | None = None
    start: str = ""
    joint: bool = False

    @property
    def name(self) -> str:
        """Return the name that says so."""
        if self.joint:
            return joint_name(self.config)
        name = self.config if self.width is None else width_name(self.width)
        if self.uniform:
            name = uniform_name(budget_label(self.uniform.bounds, self.uniform.device))
        return _started(name, self.start)


def readings(name: str) -> Iterator[Said]:
    """Yield all that the name of a retrained network may say, the likeliest first: configs may be called anything."""
    for match in re.finditer(_FROM, name):
        before, start = name[: match.start()], name[match.end() :]
        if before and start:
            yield replace(_alone(before), start=start)
    if name.endswith(_JOINT) and name != _JOINT:
        yield Said(config=name.removesuffix(_JOINT), joint=True)
    yield _alone(name)


def _alone(name: str) -> Said:
    """Return what a name says that tells of no start."""
    if (width := width_of(name)) is not None:
        return Said(width=width)
    label = name.removeprefix(uniform_name(""))
    if label != name and (asked := budget_of(label)):
        return Said(uniform=asked)
    return Said(config=name)
