"""Draw docs/searched.png: searched networks beside one width, from the tables of docs/search.md.

python scripts/figure.py
"""

import re
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

DOCS = Path(__file__).parents[1] / "docs"
BASES = {
    "**MobileNetV2**": "MobileNetV2 at 32x32",
    "**Flat base**": "ResNet-14, 24 channels everywhere",
    "**Doubling base**": "ResNet-14, doubling (He et al.)",
}
SEARCHED, UNIFORM = ("default", "stride 0.05"), ("uniform",)
"""How the tables call what is compared."""
ROW = re.compile(r"\| (\d+) % \| ([^|]+) \| ([\d.]+) ± ([\d.]+) \|")


def main() -> None:
    """Read the rows and draw one panel for each base network."""
    text = (DOCS / "search.md").read_text(encoding="utf-8")
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
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("test top-1, %", fontsize=8)
    panels[0].legend(fontsize=8, frameon=False, loc="lower left")
    figure.savefig(DOCS / "searched.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
