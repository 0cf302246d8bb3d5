"""Draw what a run found: channels per unit, and the slimming curve."""

import io
from pathlib import Path
from typing import Any

from autoslim_cli.cost.budget import short
from autoslim_cli.files.atomic import write_bytes, write_json
from autoslim_cli.files.channel_config import read_config
from autoslim_cli.search.log import LOG_FILE, read_steps
from autoslim_cli.stages.search import SearchResult
from autoslim_cli.stages.workshop import Workshop

TABLE_FILE, PLOT_FILE = "report.json", "report.png"


def write_report(shop: Workshop, found: SearchResult, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Write `report.json`, and `report.png` where matplotlib is installed; return their paths."""
    write_json(shop.path(TABLE_FILE), {"networks": rows, "evaluations": found.evaluations})
    written: dict[str, Any] = {"report": str(shop.path(TABLE_FILE)), "plot": None}
    try:
        import matplotlib as mpl
    except ImportError:
        shop.reporter.say("no plot: pip install 'autoslim[plot]' draws one")
        return written
    mpl.use("agg")
    write_bytes(shop.path(PLOT_FILE), _draw(shop, found))
    written["plot"] = str(shop.path(PLOT_FILE))
    return written


def write_spectrum(shop: Workshop, rows: list[dict[str, Any]]) -> dict[str, str]:
    """Write `spectrum.json` and, with matplotlib, `spectrum.png`: FLOPs against top-1; return their paths."""
    write_json(shop.path("spectrum.json"), {"subnetworks": rows})
    written = {"spectrum": str(shop.path("spectrum.json"))}
    try:
        import matplotlib as mpl
    except ImportError:
        return written
    mpl.use("agg")
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
    axes.set_title(f"{shop.recipe.model.name}: one supernet, many widths")
    axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
    write_bytes(shop.path("spectrum.png"), _png(figure))
    return {**written, "plot": str(shop.path("spectrum.png"))}


def _png(figure: Any) -> bytes:
    """Return a figure as PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _draw(shop: Workshop, found: SearchResult) -> bytes:
    """Return the two charts as PNG bytes."""
    from matplotlib.figure import Figure

    units = [name for name, unit in shop.space.units.items() if len(unit.counts) > 1]
    base = [shop.space.units[name].unit.base for name in units]
    figure = Figure(figsize=(max(8.0, 0.36 * len(units) + 4), 8), layout="constrained")
    bars, curve = figure.subplots(2, 1)
    # 1. Channels per unit, searched against base.
    places = list(range(len(units)))
    bars.bar(places, base, width=0.85, color="0.88", label="base network")
    width = 0.85 / len(found.configs)
    for number, config in enumerate(found.configs):
        channels = read_config(shop.path(Path(config["path"]).name)).channels
        at = [place - 0.425 + width * (number + 0.5) for place in places]
        bars.bar(at, [channels[name] for name in units], width=width * 0.8, label=f"searched, {config['budget']}")
    bars.set_xticks(places, units, rotation=60, ha="right", fontsize=8)
    bars.set_ylabel("channels")
    bars.set_title(f"{shop.recipe.model.name}: channels per unit")
    bars.legend()
    # 2. The slimming curve.
    steps = read_steps(shop.path(LOG_FILE))
    path = [(step["flops"], step["loss"]) for step in steps if step["kind"] == "slim"]
    others = [(step["flops"], step["loss"]) for step in steps if step["kind"] != "slim"]
    if path:
        curve.plot(*zip(*path, strict=True), color="C3", lw=1.5)
    if others:
        curve.plot(*zip(*others, strict=True), ".", color="0.6")
    for number, config in enumerate(found.configs):
        curve.plot(config["flops"], config["loss"], "o", color=f"C{number}", label=f"{config['budget']}")
    curve.invert_xaxis()
    curve.xaxis.set_major_formatter(lambda value, _: short(value))
    curve.set_xlabel("FLOPs (multiply-adds)")
    curve.set_ylabel("loss on the holdout, before retraining")
    curve.set_title(f"{found.strategy} search: {len(path) or len(steps)} steps, {found.evaluations} evaluations")
    curve.legend()
    for axes in (bars, curve):
        axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)
