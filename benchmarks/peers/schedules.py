"""Fine-tune one network by several schedules, judged on images that nothing trained on."""

import re
import subprocess
import sys
import time
from pathlib import Path

from commands import environment
from plan import RESULTS, Chosen, add_row, find, rows_of

SCHEDULES: dict[str, list[str]] = {
    "as the base network": [],
    "less decay": ["retrain.weight_decay=0.0001"],
    "batch 64": ["retrain.batch=64"],
    "averaged": ["retrain.ema=0.999"],
    "half the rate": ["retrain.lr=0.05"],
    "twice the rate": ["retrain.lr=0.2"],
    "batch 64, half the rate": ["retrain.batch=64", "retrain.lr=0.05"],
    "batch 64, less decay": ["retrain.batch=64", "retrain.weight_decay=0.0001"],
    "cosine": ["retrain.schedule=cosine"],
    "twice the decay": ["retrain.weight_decay=0.001"],
    "no warm-up": ["retrain.warmup=0"],
    "taught by the supernet's largest network": ["retrain.teacher=supernet"],
    "taught, temperature 4": ["retrain.teacher=supernet", "retrain.temperature=4"],
    "taught, temperature 4, no labels": [
        "retrain.teacher=supernet",
        "retrain.temperature=4",
        "retrain.teacher_weight=1",
    ],
}
"""What each changes in the recipe."""
SOURCE, START = "warm", "supernet"
REACHED = re.compile(r"holdout top-1 ([\d.]+)%")


def schedules(chosen: Chosen) -> None:
    """Train what has no row yet, at the largest budget. The holdout alone judges: the test set's figure is not kept."""
    file, share = RESULTS.parent / "trials" / "schedules.jsonl", chosen.base.shares[0]
    for name, changes in SCHEDULES.items():
        for seed in chosen.seeds[chosen.shard :: chosen.shards]:
            key = {"base": chosen.name, "seed": seed, "share": share, "schedule": name}
            key["supernet_epochs"] = chosen.base.warm_epochs
            found = find(rows_of(chosen.file("found")), seed=seed, source=SOURCE, share=share)
            if found is not None and not find(rows_of(file), **key):
                add_row(file, {**key, "changes": changes, **train(chosen, seed, found["arch"], changes)})


def train(chosen: Chosen, seed: int, arch: str, changes: list[str]) -> dict[str, object]:
    """Train without the holdout (a patience that never ends); return its top-1 after the last epoch."""
    directory, name, began = chosen.place(seed, SOURCE), "schedule", time.perf_counter()
    for left in directory.glob(f"model-{name}*"):
        left.unlink()
    command = [sys.executable, "-m", "autoslim_cli", "retrain", arch, "-r", str(directory), "--name", name]
    command += ["--from", START, f"retrain.epochs={chosen.base.epochs}", "retrain.patience=1000", *changes]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=environment(), check=False)
    reached = REACHED.findall(done.stderr)
    if done.returncode or not reached:
        sys.exit(f"{' '.join(command)}\nended with exit code {done.returncode}\n{done.stderr[-2000:]}")
    for left in Path(directory).glob(f"model-{name}*"):
        left.unlink()
    return {"holdout_top1": float(reached[-1]) / 100, "seconds": round(time.perf_counter() - began, 1)}
