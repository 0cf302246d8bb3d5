"""Measure how well latency is predicted: profile a device, then compare with networks that were not fitted.

    python benchmarks/latency.py [--quick] [--json] [--chart FILE]

Prints, for each network and engine, the median and 90th percentile of |predicted - measured| / measured and the rank
correlation over 30 random sub-networks, beside the machine's own repeatability: two measurements of each of them, some
time apart, in the same run. `median_error_warm` is the error of a fit that knows nothing of cold weights. `--quick`
(under 3 minutes on two CPU cores) does MobileNetV2 at 96x96 by eager PyTorch; without it ONNX Runtime, ResNet-18 and
224x224 follow. `--chart` draws FLOPs against measured latency of 100 random sub-networks of the first network (needs
matplotlib).
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from autoslim_cli.cli.options import open_recipe
from autoslim_cli.latency.building import build_network
from autoslim_cli.latency.correction import check, fit
from autoslim_cli.latency.engines import load
from autoslim_cli.latency.pieces import pieces
from autoslim_cli.latency.predictor import predictor
from autoslim_cli.latency.random_networks import random_channels
from autoslim_cli.latency.table import Engine, read_table
from autoslim_cli.latency.timing import time_interleaved
from autoslim_cli.stages.profile import profile
from autoslim_cli.stages.project import Project, with_latency

RECIPE = """\
format: autoslim.recipe/1
model: {{name: {name}, input: [3, {side}, {side}], classes: 10}}
data: {{name: digits, holdout: 300}}
space: {{groups: 12, divisor: 8}}
supernet: {{width: 1.5, min_width: 0.15}}
train: {{epochs: 1, batch: 64, lr: 0.1}}
retrain: {{epochs: 1, batch: 64, lr: 0.1}}
"""
QUICK: list[tuple[str, int, Engine]] = [("torchvision/mobilenet_v2", 96, "eager")]
FULL: list[tuple[str, int, Engine]] = [
    *QUICK,
    ("torchvision/mobilenet_v2", 96, "onnxruntime"),
    ("torchvision/resnet18", 96, "eager"),
    ("torchvision/resnet18", 96, "onnxruntime"),
    ("torchvision/mobilenet_v2", 224, "eager"),
    ("torchvision/mobilenet_v2", 224, "onnxruntime"),
]
CHARTED = 100


def project_of(name: str, side: int, directory: str) -> Project:
    """Open a recipe for one network."""
    (Path(directory) / "recipe.yaml").write_text(RECIPE.format(name=name, side=side))
    return open_recipe(directory, ())


def measure(name: str, side: int, engine: Engine, chart: Path | None = None) -> dict[str, Any]:
    """Profile one network by one engine, and draw FLOPs against latency."""
    with tempfile.TemporaryDirectory() as directory:
        project = project_of(name, side, directory)
        result = profile(project, engine=engine, dtype="fp32", batch=1, channels_last=True, resume=False)
        table = Path(result["path"])
        more: dict[str, Any] = {"median_error_warm": without_cold(project, table)}
        if chart:
            more["chart"] = charted(with_latency(project, table), chart)
    facts = {key: result[key] for key in ("device", "shapes", "points", "range_ms", "base_ms", "correction")}
    return {"network": name, "side": side, "engine": engine, **(result["check"] or {}), **more, **facts}


def without_cold(project: Project, path: Path) -> float:
    """Return the median error where the times that cold weights add are left out of the fit."""
    table = read_table(path)
    layers = [layer.model_copy(update={"cold_ms": []}) for layer in table.layers]
    latency = predictor(
        table.model_copy(update={"layers": layers}),
        pieces(project.network.reading),
        *project.network.space.ends,
        str(path),
    )
    return check(replace(latency, correction=fit(latency, table.fitted)), table.checked).median_error


def charted(project: Project, path: Path) -> dict[str, Any]:
    """Draw FLOPs against latency of random sub-networks, timed in turn; return the points, and who ranks them."""
    from matplotlib.figure import Figure
    from scipy.stats import spearmanr

    assert project.latency_table is not None
    device = read_table(project.latency_table).device
    recipe, network = project.recipe, project.network
    numbers = range(1000, 1000 + CHARTED)  # others than those that a table was corrected by
    channels = [random_channels(network.space, recipe.supernet, recipe.seed, number) for number in numbers]
    runs = [load(*build_network(network.reading, c, 1), device, project.device) for c in channels]
    ms = [median for median, _ in time_interleaved(runs, project.device)]
    flops = [project.costs["flops"](c) for c in channels]
    predicted = [project.costs["latency"](c) for c in channels]
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([count / 1e6 for count in flops], ms, "o", ms=4)
    axes.set_xlabel("MFLOPs (multiply-adds)")
    axes.set_ylabel("measured ms")
    model = recipe.model
    side = f"{model.input[1]}x{model.input[2]}"
    axes.set_title(f"{model.name} at {side}, {len(ms)} random sub-networks\n{device}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100)
    ranks = {name: float(spearmanr(values, ms).statistic) for name, values in (("flops", flops), ("table", predicted))}
    return {"flops": flops, "ms": ms, "predicted_ms": predicted, "rank_correlation": ranks}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--chart", type=Path)
    options = parser.parse_args()
    first, *others = QUICK if options.quick else FULL
    results = [measure(*first, options.chart), *(measure(*one) for one in others)]
    keys = ("median_error", "p90_error", "rank_correlation", "repeatability")
    if options.as_json:
        threads = torch.get_num_threads()
        facts = {"threads": threads, "torch": torch.__version__, **{key: results[0][key] for key in keys}}
        print(json.dumps({**facts, "networks": results}))
        return
    for result in results:
        low, high = result["range_ms"]
        figures = "  ".join(f"{key} {result[key]:.3f}" for key in keys)
        print(
            f"{result['network']} at {result['side']}, {result['engine']}, {low:.2f} to {high:.2f} ms, "
            f"{result['shapes']} shapes, {result['points']} points: {figures}"
        )
    if options.chart:
        ranks = results[0]["chart"]["rank_correlation"]
        print(
            f"{options.chart}: latency is ranked by FLOPs with {ranks['flops']:.3f}, by the table {ranks['table']:.3f}"
        )


if __name__ == "__main__":
    main()
