"""Draw what a run found: channels per unit, the slimming curve, and the spectrum of widths."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoslim_cli.cost.budget import short
from autoslim_cli.files.atomic import write_bytes, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLE_FILE, PLOT_FILE = "report.json", "report.png"
SPECTRUM_FILE, SPECTRUM_PLOT_FILE = "spectrum.json", "spectrum.png"


@dataclass(frozen=True)
class Found:
    """The channels that a search found for a budget, and what they cost and lose on the holdout."""

    budget: str
    channels: Mapping[str, int]
    flops: float
    loss: float


@dataclass(frozen=True)
class Search:
    """What is drawn of a search: the base network's counts of the units that it could slim, its steps and finds."""

    model: str
    strategy: str
    evaluations: int
    base: Mapping[str, int]
    found: Sequence[Found]
    steps: Sequence[Mapping[str, Any]]


def write_report(directory: Path, search: Search, rows: list[dict[str, Any]]) -> dict[str, str | None]:
    """Write `report.json`, and `report.png` where matplotlib is installed; return their paths."""
    write_json(directory / TABLE_FILE, {"networks": rows, "evaluations": search.evaluations})
    plot = directory / PLOT_FILE if _can_draw() else None
    if plot:
        write_bytes(plot, _png(_search(search)))
    return {"report": str(directory / TABLE_FILE), "plot": str(plot) if plot else None}


def write_spectrum(directory: Path, model: str, rows: list[dict[str, Any]]) -> dict[str, str]:
    """Write `spectrum.json` and, with matplotlib, `spectrum.png`: FLOPs against top-1; return their paths."""
    write_json(directory / SPECTRUM_FILE, {"subnetworks": rows})
    written = {"spectrum": str(directory / SPECTRUM_FILE)}
    if _can_draw():
        write_bytes(directory / SPECTRUM_PLOT_FILE, _png(_spectrum(model, rows)))
        written["plot"] = str(directory / SPECTRUM_PLOT_FILE)
    return written


def _can_draw() -> bool:
    """Tell whether matplotlib is here, and set it up to draw into files."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("agg")
    return True


def _png(figure: "Figure") -> bytes:
    """Return a figure as PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _spectrum(model: str, rows: list[dict[str, Any]]) -> "Figure":
    """Draw FLOPs against top-1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    ordered = sorted(rows, key=lambda row: row["flops"])
    uniform = [(row["flops"], row) for row in ordered if row["name"].startswith("width-")]
    for key, label, style in (("top1", "calibrated", "o-C0"), ("uncalibrated_top1", "uncalibrated", "x--C1")):
        points = [(flops, row[key]) for flops, row in uniform if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=f"uniform widths, {label}")
    others = [(row["flops"], row["top1"]) for row in rows if not row["name"].startswith("width-")]
    if others:
        axes.plot(*zip(*others, strict=True), "sC3", label="channel configs, calibrated")
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    axes.set_xlabel("FLOPs (multiply-adds)")
    axes.set_ylabel("top-1 on the holdout")
    axes.set_title(f"{model}: one supernet, many widths")
    axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _search(search: Search) -> "Figure":
    """Draw channels per unit, and the slimming curve."""
    from matplotlib.figure import Figure

    places, names = list(range(len(search.base))), list(search.base)
    figure = Figure(figsize=(max(8.0, 0.36 * len(names) + 4), 8), layout="constrained")
    bars, curve = figure.subplots(2, 1)
    # 1. Channels per unit, searched against base.
    bars.bar(places, list(search.base.values()), width=0.85, color="0.88", label="base network")
    width = 0.85 / len(search.found)
    for number, found in enumerate(search.found):
        at = [place - 0.425 + width * (number + 0.5) for place in places]
        bars.bar(at, [found.channels[name] for name in names], width=width * 0.8, label=f"searched, {found.budget}")
    bars.set_xticks(places, names, rotation=60, ha="right", fontsize=8)
    bars.set_ylabel("channels")
    bars.set_title(f"{search.model}: channels per unit")
    bars.legend()
    # 2. The slimming curve.
    path = [(step["flops"], step["loss"]) for step in search.steps if step["kind"] == "slim"]
    others = [(step["flops"], step["loss"]) for step in search.steps if step["kind"] != "slim"]
    if path:
        curve.plot(*zip(*path, strict=True), color="C3", lw=1.5)
    if others:
        curve.plot(*zip(*others, strict=True), ".", color="0.6")
    for number, found in enumerate(search.found):
        curve.plot(found.flops, found.loss, "o", color=f"C{number}", label=found.budget)
    curve.invert_xaxis()
    curve.xaxis.set_major_formatter(lambda value, _: short(value))
    curve.set_xlabel("FLOPs (multiply-adds)")
    curve.set_ylabel("loss on the holdout, before retraining")
    steps = len(path) or len(search.steps)
    curve.set_title(f"{search.strategy} search: {steps} steps, {search.evaluations} evaluations")
    curve.legend()
    for axes in (bars, curve):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
