"""Draw the figure and the pictures of docs/tasks-shown.md."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from plan import SHARES, TASKS, Chosen, Row, images_of, rows_of
from torch import Tensor

from autoslim_cli import load_model
from autoslim_cli.data.transforms import reduced

mpl.use("Agg")
import matplotlib.pyplot as plt

DOCS = Path(__file__).resolve().parents[2] / "docs"
SIDE = 96
PLACES = {"chelsea": (70, 125), "china": (90, 160), "astronaut": (336, 122)}
"""Top and left of the parts of test photographs that are shown."""
SCENES = range(6)
"""The first test scenes."""
COLOURS = np.array([[40, 40, 40], [230, 159, 0], [86, 180, 233]], dtype=np.uint8)
"""Background, animals and vehicles."""


def draw(chosen: Chosen) -> None:
    """Draw all."""
    scores_over_flops(chosen)
    photographs(chosen)
    masks(chosen)


def scores_over_flops(chosen: Chosen) -> None:
    """Draw each task's scores over FLOPs: the supernet's widths, and what was trained from scratch."""
    figure, panels = plt.subplots(1, len(chosen.tasks), figsize=(9, 3.2), layout="constrained", squeeze=False)
    for panel, task in zip(panels[0], chosen.tasks, strict=True):
        rows = rows_of(chosen.file(task))
        widths = sorted({row["width"] for row in rows if row["network"] == "supernet"})
        of_widths = [[row for row in rows if row.get("width") == width] for width in widths]
        points(panel, task, of_widths, label="one supernet, its widths", color="C0", marker=".", linestyle="-")
        for network, label, colour, marker in (
            ("searched in the supernet", "one supernet, searched", "C0", "d"),
            ("one width", "one width, trained alone", "0.45", "o"),
            ("searched", "searched, trained alone", "C3", "o"),
            ("base", "base network, trained alone", "black", "s"),
        ):
            of = [[r for r in rows if r["network"] == network and r.get("share") == share] for share in (*SHARES, None)]
            points(panel, task, of, label=label, color=colour, marker=marker)
        for row in rows:
            if row["network"] == "bicubic":
                panel.axhline(row["psnr"], color="0.6", linestyle=":", label="bicubic")
        panel.set_title(task, fontsize=9)
        panel.set_xlabel("FLOPs, millions", fontsize=8)
        panel.set_ylabel(f"test {TASKS[task].label}", fontsize=8)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(fontsize=7, frameon=False, loc="lower right")
    figure.savefig(DOCS / "tasks-spectrum.png", dpi=110, metadata={"Software": None})


def points(panel: Any, task: str, groups: Sequence[Sequence[Row]], **look: str) -> None:
    """Draw one point for each group of rows: mean and deviation over seeds."""
    groups = [group for group in groups if group]
    scores = [[row[TASKS[task].score] * TASKS[task].times for row in group] for group in groups]
    flops = [statistics.mean(row["flops"] for row in group) / 1e6 for group in groups]
    means = [statistics.mean(some) for some in scores]
    off = [statistics.stdev(some) if len(some) > 1 else 0.0 for some in scores]
    panel.errorbar(flops, means, off, **{"linestyle": "none", **look}, markersize=4, capsize=2)


def photographs(chosen: Chosen) -> None:
    """Draw parts of test photographs: the network's input, bicubic, one width, searched, the truth."""
    place, share = chosen.place("super-resolution", 0), SHARES[-1]
    networks = {
        f"{name}, {share} %": load_model(place / file)[0]
        for name, file in (
            ("one width", f"model-uniform-{share}pct.safetensors"),
            ("searched", f"model-{share}pct.safetensors"),
        )
    }
    figure, panels = plt.subplots(len(PLACES), 5, figsize=(9, 6), layout="constrained")
    for line, (name, (top, left)) in zip(panels, PLACES.items(), strict=True):
        whole = torch.from_numpy(np.array(Image.open(images_of("super-resolution") / "whole" / f"{name}.png")))
        truth = whole[top : top + SIDE, left : left + SIDE].permute(2, 0, 1).unsqueeze(0)
        low = reduced(truth, 2).float() / 255
        shown = {"low resolution": F.interpolate(low, scale_factor=2, mode="nearest")}
        shown["bicubic"] = F.interpolate(low, scale_factor=2, mode="bicubic", align_corners=False)
        with torch.inference_mode():
            shown |= {title: network(low) for title, network in networks.items()}
        shown["truth"] = truth.float() / 255
        for panel, (title, image) in zip(line, shown.items(), strict=True):
            panel.imshow(image[0].clamp(0, 1).permute(1, 2, 0).numpy(), interpolation="nearest")
            known = title in ("low resolution", "truth")
            said = title if known else f"{title}: {psnr(image, shown['truth']):.2f} dB"
            panel.set_title(said, fontsize=8)
            panel.set_axis_off()
    figure.savefig(DOCS / "tasks-photographs.png", dpi=110, metadata={"Software": None})


def psnr(image: Tensor, truth: Tensor) -> float:
    """Return the PSNR in dB."""
    return float(-10 * (image.clamp(0, 1) - truth).square().mean().log10())


def masks(chosen: Chosen) -> None:
    """Draw test scenes, their masks, and those that one width and the searched network give."""
    place, share = chosen.place("segmentation", 0), SHARES[-1]
    one, searched = (load_model(place / f"model-{name}{share}pct.safetensors")[0].eval() for name in ("uniform-", ""))
    figure, panels = plt.subplots(4, len(SCENES), figsize=(6.5, 4.6), layout="constrained")
    images = images_of("segmentation") / "test"
    for column, number in zip(panels.T, SCENES, strict=True):
        scene = np.array(Image.open(images / "images" / f"{number:05}.png"))
        mask = np.array(Image.open(images / "masks" / f"{number:05}.png"))
        pixels = (torch.from_numpy(scene).permute(2, 0, 1).unsqueeze(0).float() / 255 - 0.5) / 0.5
        with torch.inference_mode():
            given = [COLOURS[network(pixels)[0].argmax(0).numpy()] for network in (one, searched)]
        for panel, image in zip(column, (scene, COLOURS[mask], *given), strict=True):
            panel.imshow(image, interpolation="nearest")
            panel.set_xticks([])
            panel.set_yticks([])
    for panel, title in zip(
        panels[:, 0], ("scene", "mask", f"one width, {share} %", f"searched, {share} %"), strict=True
    ):
        panel.set_ylabel(title, fontsize=8)
    figure.savefig(DOCS / "tasks-masks.png", dpi=110, metadata={"Software": None})
