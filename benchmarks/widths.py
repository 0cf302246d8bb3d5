"""Train universally slimmable networks, with and without the sandwich rule and distillation, and a slimmable one.

All are ResNet-8 with a stem of stride 2 on CIFAR-10 images, through the real commands. Prints a table: top-1 on the
holdout over the spectrum of widths. Needs data/cifar10-jpeg (`make smoke` unpacks it where it is at hand).

    python benchmarks/widths.py [--images 20000] [--epochs 12] [--seeds 1]

About half an hour on two CPU cores. Works in runs/widths.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path("runs/widths")
SPECTRUM = "0.25:1.0:0.025"
SWITCHES = (0.25, 0.5, 0.75, 1.0)
UNIVERSAL = ["supernet.width=1.0", "supernet.min_width=0.25", "supernet.sampling=uniform"]
VARIANTS = {
    "sandwich": UNIVERSAL,
    "labels": [*UNIVERSAL, "supernet.distill=false"],
    "random": [*UNIVERSAL, "supernet.sandwich=false"],
    "switchable": [*UNIVERSAL, "supernet.bn=switchable", f"supernet.widths={list(SWITCHES)}", "supernet.distill=false"],
}


def autoslim(*arguments: str) -> dict[str, Any]:
    """Run one command; return the JSON object that it prints."""
    command = [sys.executable, "-m", "autoslim_cli", *arguments, "--json"]
    value: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return value


def measure(variant: str, seed: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Train one variant; return the figures of every width by its name."""
    place = HERE / f"{variant}-{seed}"
    shutil.rmtree(place, ignore_errors=True)
    autoslim("recipes", "copy", "cifar10-smoke", str(place))
    settings = ["-r", str(place), f"seed={seed}", f"data.limit={options.images + 2000}", "data.holdout=2000"]
    settings += [f"train.epochs={options.epochs}", "data.path=../../../data/cifar10-jpeg", *VARIANTS[variant]]
    trained = autoslim("train-supernet", *settings)
    if variant == "switchable":
        return dict(trained["widths"])
    rows = autoslim("calibrate-bn", "--widths", SPECTRUM, "--compare", *settings)["subnetworks"]
    return {row["name"]: row for row in rows}


def cell(results: list[dict[str, dict[str, float]]], name: str, key: str) -> str:
    """Write the mean of a figure over seeds, and its deviation where there are several."""
    values = [100 * result[name][key] for result in results if name in result]
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    results = {v: [measure(v, seed, options) for seed in range(options.seeds)] for v in VARIANTS}
    (HERE / "results.json").write_text(json.dumps(results, indent=1))
    print("| width | FLOPs | sandwich | uncalibrated | sandwich, labels alone | random, labels alone | switchable BN |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, row in results["sandwich"][0].items():
        columns = [("sandwich", "top1"), ("sandwich", "uncalibrated_top1")]
        columns += [(variant, "top1") for variant in ("labels", "random", "switchable")]
        cells = [cell(results[variant], name, key) for variant, key in columns]
        print(f"| {name.removeprefix('width-')} | {row['flops']:,} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
