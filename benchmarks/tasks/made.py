"""Make the results through autoslim's own commands: train, search, retrain, and measure on the test images."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from plan import FINE_TUNED, SHARES, TASKS, Chosen, Row, add_row, find, rows_of

ROOT = Path(__file__).resolve().parents[2]
NAMES = {"uniform": "one width", "searched": "searched"}
"""What `autoslim run` calls networks, and what rows do."""


def make(chosen: Chosen) -> list[Row]:
    """Make what has no row yet; return all rows of the chosen tasks and seeds."""
    for task in chosen.tasks:
        images = TASKS[task].images
        if images and not images.is_dir():
            sys.exit(f"{images} is not there: python {TASKS[task].script}")
        if task == "super-resolution" and not find(rows_of(chosen.file(task)), network="bicubic"):
            add_row(chosen.file(task), bicubic(chosen, task))
        for seed in chosen.seeds:
            retrained(chosen, task, seed)
            if TASKS[task].fine_tuned:
                fine_tuned(chosen, task, seed)
            if TASKS[task].spectrum:
                spectrum(chosen, task, seed)
    rows = [row for task in chosen.tasks for row in rows_of(chosen.file(task))]
    return [row for row in rows if row["seed"] in (None, *chosen.seeds)]


def retrained(chosen: Chosen, task: str, seed: int) -> None:
    """Train the supernet, search, and train the base, one width and what was found from scratch: `autoslim run`."""
    if find(rows_of(chosen.file(task)), seed=seed, network="base"):
        return
    budgets = ",".join(f"{share}%" for share in SHARES)
    base, *others = autoslim(chosen, task, seed, "run", "--flops", budgets, "--retrain-base")["networks"]
    shares = [share for share in SHARES for _ in ("searched", "one width")]
    for share, network in zip(shares, others, strict=True):
        add_row(chosen.file(task), row_of(chosen, task, seed, NAMES[network["network"]], network, share=share))
    add_row(chosen.file(task), row_of(chosen, task, seed, "base", base))  # the last: where it is, all are


def fine_tuned(chosen: Chosen, task: str, seed: int) -> None:
    """Train what was found and one width once more, from the supernet's weights: `autoslim run --from supernet`."""
    if find(rows_of(chosen.file(task)), seed=seed, network="one width" + FINE_TUNED, share=SHARES[-1]):
        return
    budgets = ",".join(f"{share}%" for share in SHARES)
    made = autoslim(chosen, task, seed, "run", "--flops", budgets, "--from", "supernet")["networks"]
    shares = [share for share in SHARES for _ in ("searched", "one width")]
    for share, network in zip(shares, (one for one in made if one["network"] in NAMES), strict=True):
        name = NAMES[network["network"]] + FINE_TUNED
        add_row(chosen.file(task), row_of(chosen, task, seed, name, network, share=share))


def spectrum(chosen: Chosen, task: str, seed: int) -> None:
    """Measure sub-networks of the supernet, calibrated and not retrained: of all widths, and the found ones."""
    place, measured = chosen.place(task, seed), rows_of(chosen.file(task))
    cut = autoslim(chosen, task, seed, "calibrate-bn", "--widths", chosen.widths, "--resume")["subnetworks"]
    for sub in cut:
        width = float(sub["name"].removeprefix("width-"))
        if not find(measured, seed=seed, network="supernet", width=width):
            network = autoslim(chosen, task, seed, "evaluate", sub["path"])
            add_row(chosen.file(task), row_of(chosen, task, seed, "supernet", network, width=width))
    for share in SHARES:
        if not find(measured, seed=seed, network="searched in the supernet", share=share):
            network = autoslim(chosen, task, seed, "evaluate", place / f"subnet-{share}pct.safetensors")
            add_row(chosen.file(task), row_of(chosen, task, seed, "searched in the supernet", network, share=share))


def row_of(chosen: Chosen, task: str, seed: int, name: str, network: Row, **more: Any) -> Row:
    """Return what is kept of a network."""
    figures = {key: network[key] for key in ("flops", "params", TASKS[task].score, "loss")}
    used = {"used": round(network["used"], 4)} if "used" in network else {}
    row = {"task": task, "seed": seed, "network": name, **more, **figures, **used}
    if name == "searched":
        found = json.loads((chosen.place(task, seed) / f"arch-{more['share']}pct.json").read_text())
        row["channels"] = found["channels"]
    return row


def bicubic(chosen: Chosen, task: str) -> Row:
    """Return what enlarging the test images bicubically gives."""
    import torch.nn.functional as F
    from torch import Tensor, nn

    from autoslim_cli.cli.options import open_recipe
    from autoslim_cli.training.measure import evaluate

    class Bicubic(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return F.interpolate(images, scale_factor=2, mode="bicubic", align_corners=False)

    directory = prepared(chosen, task, 0)
    project = open_recipe(str(directory), tuple(chosen.settings(task, 0)))
    figures = evaluate(Bicubic(), project.images.test.evaluation(64), project.task).figures
    return {"task": task, "seed": None, "network": "bicubic", "flops": 0, "params": 0, **figures}


def prepared(chosen: Chosen, task: str, seed: int) -> Path:
    """Return the recipe directory of a task and seed, made if it is not there."""
    place = chosen.place(task, seed)
    if not (place / "recipe.yaml").exists():
        place.mkdir(parents=True, exist_ok=True)
        recipe = ROOT / "recipes" / TASKS[task].recipe
        for file in [*recipe.glob("*.py"), recipe / "recipe.yaml"]:
            shutil.copy(file, place)
    return place


def autoslim(chosen: Chosen, task: str, seed: int, *arguments: object) -> Row:
    """Run a command with --json; return what it printed. Ends the benchmark where it fails."""
    directory = prepared(chosen, task, seed)
    command = [sys.executable, "-m", "autoslim_cli", *map(str, arguments), "-r", str(directory), "--json"]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    began = time.perf_counter()
    done = subprocess.run(
        [*command, *chosen.settings(task, seed)], stdout=subprocess.PIPE, text=True, env=environment, check=False
    )
    print(f"[{time.perf_counter() - began:6.1f} s] autoslim {' '.join(command[3:])}", file=sys.stderr, flush=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nended with exit code {done.returncode}")
    said: Row = json.loads(done.stdout)
    return said
