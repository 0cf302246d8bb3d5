"""Run a shipped recipe for several seeds, and say how far searched networks are ahead of one width of equal FLOPs.

    python benchmarks/recipes.py digits [--seeds 0,1] [--from supernet] [--summary] [key=value ...]
    python benchmarks/recipes.py cifar10-small data.name=image-folder data.path=../../../../data/cifar10-jpeg

Each seed is `autoslim run` in a directory of its own, runs/recipes/NAME/seed-N: supernet, search, and the base, the
searched and the uniform networks trained; what is there is not made again. Where the supernet does not start from a
base network that is trained first, it is `run --retrain-base`. Rows, with the CPU time that a seed took, go to
benchmarks/results/recipes/NAME.jsonl. `--summary` runs nothing. Settings and budgets were chosen on
other seeds (digits: 100 and 101) and, of cifar10-small, on held training images. Settings other than the recipe's, as
where images lie, stand in the rows.
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
from autoslim_cli.recipe.loading import load_recipe

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "recipes"
BUDGETS = {"digits": "7%", "cifar10-small": "50%,25%"}
"""Of each recipe that is shown; those of digits are what `make demo` runs."""
SEEDS = {"digits": "0,1,2,3,4", "cifar10-small": "0,1,2"}
TITLES = {"base": "base network", "uniform": "one width", "searched": "searched"}
KEPT = ("network", "budget", "used", "flops", "params", "loss", "top1", "channels")

Row = dict[str, Any]


def run(recipe: str, seed: int, start: str, overrides: list[str]) -> Row:
    """Return the networks of one seed, and the seconds of CPU time that they took."""
    directory = ROOT / "runs" / "recipes" / recipe / f"seed-{seed}"
    if not directory.is_dir():
        catalogue.copy(recipe, directory)
    settings = ["-r", str(directory), f"seed={seed}", *overrides]
    before, spent = _children(), directory / "cpu-seconds.txt"
    base = load_recipe(directory).base
    try:
        said = _said("run", "--flops", BUDGETS[recipe], *["--retrain-base"] * (not base), *settings, "--from", start)
    finally:  # a run that was stopped goes on later, and what it took counts
        earlier = float(spent.read_text()) if spent.exists() else 0.0
        spent.write_text(f"{earlier + _children() - before}\n")
    return {
        "seed": seed,
        "start": start,
        **({"overrides": overrides} if overrides else {}),
        "networks": [{key: row[key] for key in KEPT if key in row} for row in said["networks"]],
        "evaluations": said["search"]["evaluations"],
        "cpu_seconds": round(float(spent.read_text()), 1),
        "threads": torch.get_num_threads(),
        "machine": processor(),
        "torch": torch.__version__,
    }


def _said(*words: str) -> Row:
    """Return what a command prints with --json."""
    command = [sys.executable, "-m", "autoslim_cli", *words, "--json"]
    said: Row = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT).stdout)
    return said


def _children() -> float:
    """Return the seconds of CPU time that processes started here have taken, once they ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def processor() -> str:
    """Return the processor's name where the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def summary(rows: list[Row]) -> str:
    """Return the table of all seeds as Markdown: mean and deviation, and those of the paired differences."""
    lines = ["| network | FLOPs | share of the budget | test top-1 |", "| --- | --- | --- | --- |"]
    shown: dict[tuple[str, str | None], list[Row]] = {}
    for network in (network for row in rows for network in row["networks"]):
        shown.setdefault((network["network"], network.get("budget")), []).append(network)
    for (name, budget), networks in sorted(shown.items(), key=lambda item: -item[1][0]["flops"]):
        used = [one["used"] for one in networks if "used" in one]
        share = f"{min(used):.1%} to {max(used):.1%} of {budget}" if used else ""
        flops = statistics.fmean(one["flops"] for one in networks)
        lines.append(f"| {TITLES[name]} | {flops:,.0f} | {share} | {_spread([one['top1'] for one in networks])} % |")
    for budget in dict.fromkeys(budget for _, budget in shown if budget):
        pairs = zip(shown["searched", budget], shown["uniform", budget], strict=True)
        ahead = [searched["top1"] - uniform["top1"] for searched, uniform in pairs]
        span = f"{100 * min(ahead):.1f} to {100 * max(ahead):.1f}"
        lines.append(f"\n{budget}: searched less one width, n = {len(ahead)}: {_spread(ahead)} points ({span}).")
    seconds = [row["cpu_seconds"] for row in rows]
    lines.append(f"CPU time of a seed: {min(seconds):,.0f} to {max(seconds):,.0f} s; {rows[0]['machine']}.")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    """Write a mean and a deviation in per cent."""
    deviation = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.1f}{deviation}"


def main() -> None:
    """Run the seeds that have no row, and print the table of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=BUDGETS)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings other than the recipe's")
    parser.add_argument("--seeds", help="by comma; those that are published by default")
    parser.add_argument("--from", dest="start", choices=["scratch", "supernet"], help="by default as the recipe says")
    parser.add_argument("--summary", action="store_true", help="print the table of what lies in the results")
    given = parser.parse_intermixed_args()
    start = given.start or load_recipe(catalogue.shipped()[given.recipe]).retrain.start
    path = RESULTS / f"{given.recipe}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(row["seed"], row["start"]) for row in rows}
    for seed in [] if given.summary else map(int, (given.seeds or SEEDS[given.recipe]).split(",")):
        if (seed, start) not in done:
            rows.append(run(given.recipe, seed, start, given.overrides))
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:  # seeds may run side by side
                file.write(json.dumps(rows[-1]) + "\n")
    print(summary([row for row in rows if row["start"] == start]))


if __name__ == "__main__":
    main()
