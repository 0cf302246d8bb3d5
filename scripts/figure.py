"""Draw the figures of the docs from tables that are in the repository.

docs/searched.png: searched networks beside one width (docs/searches.md). docs/spectrum.png: one supernet over all
widths (docs/widths.md). docs/channels.png: the channels that AutoSlim's authors published, beside MobileNetV2's own.

python scripts/figure.py
"""

import json
import re
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
SEARCHED, UNIFORM = ("default", "stride 0.05"), ("uniform",)
"""How the tables call what is compared."""
ROW = re.compile(r"\| (\d+) % \| ([^|]+) \| ([\d.]+) ± ([\d.]+) \|")


def main() -> None:
    """Draw all."""
    searched()
    spectrum()
    channels()


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
    panel.bar([x - 0.2 for x in places], counts.values(), 0.4, label="MobileNetV2 1.0x, 300.8M FLOPs", color="0.7")
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
