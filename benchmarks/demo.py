"""Run the demo for several seeds, and say how far the searched network is ahead of one width within the same FLOPs.

    python benchmarks/demo.py [--seeds 0,1,2,3,4] [--summary]

Each seed is the job of `make demo` in a directory of its own, runs/demo/seed-N: supernet, search, and the base, the
searched and the uniform network trained from scratch. Its rows, with the CPU time that it took, go to
benchmarks/results/demo.jsonl. Recipe and budget were chosen with seeds 100 and 101; those that are reported were run
once, after that. `--summary` runs nothing.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from autoslim_cli.recipe import catalogue

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "demo.jsonl"
RECIPE, BUDGET = "digits", "7%"
"""What `make demo` runs."""


def run(seed: int) -> dict[str, Any]:
    """Return the networks of one demo, and the seconds of CPU time that it took."""
    directory = ROOT / "runs" / "demo" / f"seed-{seed}"
    if not directory.is_dir():
        catalogue.copy(RECIPE, directory)
    command = ["-m", "autoslim_cli", "run", "--flops", BUDGET, "--train-base", "-r", str(directory), "--json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *command, f"seed={seed}"], stdout=subprocess.PIPE, check=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    networks = [
        {key: row[key] for key in ("network", "used", "flops", "params", "loss", "top1", "channels") if key in row}
        for row in json.loads(done.stdout)["networks"]
    ]
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "seed": seed,
        "budget": BUDGET,
        "networks": networks,
        "cpu_seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "machine": _processor(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    """Return the processor's name where the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def summary(rows: list[dict[str, Any]]) -> str:
    """Return the table of all seeds as Markdown: mean and deviation, and those of the paired difference."""
    by_network = {
        name: [next(one for one in row["networks"] if one["network"] == name) for row in rows]
        for name in ("base", "uniform", "searched")
    }
    titles = {"base": "base network", "uniform": "one width", "searched": "searched"}
    lines = ["| network | FLOPs | share of the budget | test top-1 |", "| --- | --- | --- | --- |"]
    for name, networks in by_network.items():
        used = [one["used"] for one in networks if "used" in one]
        share = f"{min(used):.1%} to {max(used):.1%}" if used else ""
        flops = statistics.fmean(one["flops"] for one in networks)
        lines.append(f"| {titles[name]} | {flops:,.0f} | {share} | {_spread([one['top1'] for one in networks])} % |")
    pairs = zip(by_network["searched"], by_network["uniform"], strict=True)
    ahead = [searched["top1"] - uniform["top1"] for searched, uniform in pairs]
    least, most = 100 * min(ahead), 100 * max(ahead)
    lines.append(f"\nSearched less one width, n = {len(ahead)}: {_spread(ahead)} points ({least:.1f} to {most:.1f}).")
    seconds = [row["cpu_seconds"] for row in rows]
    lines.append(f"CPU time of a demo: {min(seconds):.0f} to {max(seconds):.0f} s; {rows[0]['machine']}.")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    """Write a mean and a deviation in per cent."""
    deviation = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.1f}{deviation}"


def main() -> None:
    """Run the seeds that are asked for, and print the table of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--summary", action="store_true", help="print the table of what lies in the results")
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    for seed in [] if arguments.summary else map(int, arguments.seeds.split(",")):
        rows = sorted([*(row for row in rows if row["seed"] != seed), run(seed)], key=lambda row: row["seed"])
        RESULTS.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(summary(rows))


if __name__ == "__main__":
    main()
