"""Draw the figures of the docs from rows and tables that are in the repository.

docs/proof.png: what users end with beside other tools, and what it costs (benchmarks/results/peers). docs/searched.png:
searched networks beside one width, by an earlier search (docs/searches.md). docs/spectrum.png: one supernet over all
widths (docs/widths.md). docs/channels.png: the channels that AutoSlim's authors published, beside MobileNetV2's own.

python scripts/figure.py
"""

import json
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BASES = {
    "**MobileNetV2**": "MobileNetV2 at 32x32",
    "**Flat base**": "ResNet-14, 24 channels everywhere",
    "**Doubling base**": "ResNet-14, doubling (He et al.)",
}
PROVEN = "resnet20"
"""The base network of the proof that is drawn."""
ARMS = {
    "warm-supernet": "autoslim, fine-tuned",
    "warm-one-width-supernet": "one width, same supernet",
    "fastnas-pruned": "FastNAS, fine-tuned",
    "torch-pruning-l2-pruned": "Torch-Pruning, fine-tuned",
    "one-width-scratch": "one width, from scratch",
}
MARKS = (("C0", "o"), ("C9", "s"), ("C1", "^"), ("C3", "v"), ("0.45", "D"))
SEARCHED, UNIFORM = ("default", "stride 0.05"), ("uniform",)
"""How the tables call what is compared."""
ROW = re.compile(r"\| (\d+) % \| ([^|]+) \| ([\d.]+) ± ([\d.]+) \|")


def main() -> None:
    """Draw all."""
    proof()
    searched()
    spectrum()
    channels()


def proof() -> None:
    """Draw each seed's networks of the proof and their means: against FLOPs, and against what each arm computes."""
    file = ROOT / "benchmarks" / "results" / "peers" / PROVEN / "final.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    figure, (by_flops, by_work) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for (arm, label), (colour, marker) in zip(ARMS.items(), MARKS, strict=True):
        points: dict[int, list[Any]] = {}
        for row in rows:
            if row["arm"] == arm:
                points.setdefault(row["share"], []).append(row)
        shares = sorted(points)
        look = {"color": colour, "marker": marker, "markersize": 5}
        for panel, cost, unit in ((by_flops, "flops", 1e6), (by_work, "multiply_adds", 1e12)):
            some = shares if panel is by_flops else shares[-1:]
            means = [(mean(points[share], cost) / unit, 100 * mean(points[share], "top1")) for share in some]
            panel.plot(*zip(*means, strict=True), label=label if panel is by_flops else None, **look)
            every = [(row[cost] / unit, 100 * row["top1"]) for share in some for row in points[share]]
            panel.scatter(*zip(*every, strict=True), color=colour, marker=marker, s=8, alpha=0.5)
    seeds = len({row["seed"] for row in rows})
    by_flops.set_xlabel("FLOPs of the network, millions", fontsize=8)
    by_flops.set_ylabel("test top-1, %", fontsize=8)
    by_work.set_xlabel(
        f"all that was computed for it (at {max(row['share'] for row in rows)} %), 10¹² multiply-adds", fontsize=8
    )
    by_work.set_xlim(left=0)
    by_flops.set_title(f"ResNet-20 at 25 and 12 % of its FLOPs, {seeds} seeds", fontsize=9)
    by_flops.legend(fontsize=7, frameon=False, loc="lower right")
    for panel in (by_flops, by_work):
        finish(panel)
    save(figure, "proof")


def mean(rows: list[Any], name: str) -> float:
    """Return the mean of a column."""
    return statistics.fmean(row[name] for row in rows)


def searched() -> None:
    """Read the rows of docs/searches.md and draw one panel for each base network."""
    text = (DOCS / "searches.md").read_text(encoding="utf-8")
    figure, panels = plt.subplots(1, len(BASES), figsize=(9, 2.9), layout="constrained")
    for panel, (mark, title) in zip(panels, BASES.items(), strict=True):
        table = text[text.index(mark) :].split("\n\n", 2)[1]
        rows = [(int(share), name, float(mean), float(off)) for share, name, mean, off in ROW.findall(table)]
        for label, names, colour in (("searched", SEARCHED, "C0"), ("one width", UNIFORM, "0.45")):
            chosen = sorted((share, mean, off) for share, name, mean, off in rows if name in names)
            shares, means, offs = zip(*chosen, strict=True)
            panel.errorbar(shares, means, offs, label=label, color=colour, marker="o", markersize=4, capsize=3)
        panel.set_title(title, fontsize=9)
        panel.set_xlim(0, 36)
        panel.set_xlabel("FLOPs, % of the base network", fontsize=8)
        finish(panel)
    panels[0].set_ylabel("test top-1, %", fontsize=8)
    panels[0].legend(fontsize=8, frameon=False, loc="lower left")
    save(figure, "searched")


def spectrum() -> None:
    """Draw top-1 over FLOPs of one supernet, with BN's statistics measured for each width, and those of the largest."""
    rows = [line.strip("| \n").split(" | ") for line in (DOCS / "widths.md").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if re.fullmatch(r"[\d.]+", row[0])]
    flops = [int(row[1].replace(",", "")) / 1e6 for row in rows]
    figure, panel = plt.subplots(figsize=(6, 3), layout="constrained")
    for column, label, colour in ((2, "BN calibrated for each width", "C0"), (3, "with the largest width's BN", "C1")):
        panel.plot(flops, [float(row[column]) for row in rows], label=label, color=colour, marker="o", markersize=3)
    panel.set_xlabel("FLOPs of the width, millions", fontsize=8)
    panel.set_ylabel("holdout top-1, %", fontsize=8)
    panel.legend(fontsize=8, frameon=False)
    finish(panel)
    save(figure, "spectrum")


def channels() -> None:
    """Draw the counts of MobileNetV2 and of the published channels of nearly equal FLOPs, along the network."""
    published = ROOT / "recipes/imagenet-mobilenet-v2/published/autoslim-305M.json"
    found: dict[str, int] = json.loads(published.read_text(encoding="utf-8"))["channels"]
    counts = {unit["name"]: unit["base"] for unit in units_of("imagenet-mobilenet-v2") if not unit["pinned"]}
    figure, panel = plt.subplots(figsize=(9, 2.9), layout="constrained")
    places = range(len(counts))
    bases = list(counts.values())
    panel.bar([x - 0.2 for x in places], bases, 0.4, label="MobileNetV2 1.0x, 300.8M FLOPs", color="0.7")
    panel.bar([x + 0.2 for x in places], [found[name] for name in counts], 0.4, label="AutoSlim's, 305.1M", color="C0")
    panel.set_xticks([])
    panel.set_xlabel("channel units, from the image to the classifier", fontsize=8)
    panel.set_ylabel("channels", fontsize=8)
    panel.legend(fontsize=8, frameon=False, loc="upper left")
    finish(panel)
    save(figure, "channels")


def units_of(recipe: str) -> list[dict[str, Any]]:
    """Return what `autoslim units` says of a recipe."""
    command = [sys.executable, "-m", "autoslim_cli", "units", "-r", f"recipes/{recipe}", "--json"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    units: list[dict[str, Any]] = json.loads(done.stdout)["units"]
    return units


def finish(panel: Any) -> None:
    """Give a panel the look of all."""
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)


def save(figure: Any, name: str) -> None:
    """Write a figure that has the same bytes whenever it is drawn."""
    figure.savefig(DOCS / f"{name}.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
