"""Write what a run found for programs, and draw the spectrum of widths."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoslim_cli.cost.budget import short
from autoslim_cli.files.atomic import write_bytes, write_json
from autoslim_cli.files.metric import Metric
from autoslim_cli.files.names import width_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLE_FILE = "report.json"
SPECTRUM_FILE, SPECTRUM_PLOT_FILE = "spectrum.json", "spectrum.png"


def write_report(directory: Path, rows: list[dict[str, Any]], evaluations: int) -> str:
    """Write `report.json`, what the page shows of a run as figures for programs; return its path."""
    write_json(directory / TABLE_FILE, {"networks": rows, "evaluations": evaluations})
    return str(directory / TABLE_FILE)


def write_spectrum(directory: Path, model: str, rows: list[dict[str, Any]], metric: Metric) -> dict[str, str]:
    """Write `spectrum.json` and, with matplotlib, `spectrum.png`: FLOPs against score; return their paths."""
    write_json(directory / SPECTRUM_FILE, {"subnetworks": rows})
    written = {"spectrum": str(directory / SPECTRUM_FILE)}
    if _can_draw():
        write_bytes(directory / SPECTRUM_PLOT_FILE, _png(_spectrum(model, rows, metric)))
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


def _spectrum(model: str, rows: list[dict[str, Any]], metric: Metric) -> "Figure":
    """Draw FLOPs against score."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes, score = figure.subplots(), metric.name
    ordered = sorted(rows, key=lambda row: row["flops"])
    uniform = [(row["flops"], row) for row in ordered if width_of(row["name"]) is not None]
    for key, label, style in ((score, "calibrated", "o-C0"), (f"uncalibrated_{score}", "uncalibrated", "x--C1")):
        points = [(flops, row[key]) for flops, row in uniform if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=f"uniform widths, {label}")
    others = [(row["flops"], row[score]) for row in rows if width_of(row["name"]) is None]
    if others:
        axes.plot(*zip(*others, strict=True), "sC3", label="channel configs, calibrated")
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    axes.set_xlabel("FLOPs (multiply-adds)")
    axes.set_ylabel(f"{metric.title} on the holdout" + (f", {metric.unit}" if metric.unit not in ("", "%") else ""))
    axes.set_title(f"{model}: one supernet, many widths")
    axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
    return figure
