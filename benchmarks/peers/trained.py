"""Train what the arms start from: the base network, a supernet, and a supernet that starts from the base network."""

import os
from pathlib import Path
from typing import Any

import accounting
from commands import autoslim
from plan import Chosen, Row, add_row, config_text, find, rows_of, write_recipe


def train(chosen: Chosen) -> None:
    """Train what is not there yet, of this shard's share."""
    makers = {"base": base_network, "supernet": supernet, "warm": warm_supernet}
    wanted = {need for arm in chosen.wanted for need in arm.needs} | {"base"}
    jobs = [(seed, what) for seed in chosen.seeds for what in makers if what in wanted]
    for seed, what in jobs[chosen.shard :: chosen.shards]:
        if not find(rows_of(chosen.file("trained")), seed=seed, what=what):
            add_row(chosen.file("trained"), {"seed": seed, "what": what, **makers[what](chosen, seed)})


def base_network(chosen: Chosen, seed: int) -> Row:
    """Train the base network on the images that are not held back."""
    base = chosen.base
    directory = write_recipe(
        chosen, seed, "base", data={"path": "../images/known", "holdout": 100}, retrain={"epochs": base.base_epochs}
    )
    made = autoslim("retrain", "-r", directory, "--width", "1.0", "--resume")
    images = base.train_images - base.holdout
    return {
        "flops": made["flops"],
        "top1": made["top1"],
        "path": made["path"],
        "epochs": base.base_epochs,
        "multiply_adds": accounting.training(made["flops"], images, base.base_epochs),
        "seconds": made["wall"],
    }


def supernet(chosen: Chosen, seed: int) -> Row:
    """Train the supernet."""
    return _supernet(chosen, seed, "supernet", chosen.base.supernet_epochs)


def warm_supernet(chosen: Chosen, seed: int) -> Row:
    """Train a supernet that starts from a trained base network, sorted.

    That base network must not have seen the supernet's holdout, which autoslim draws: it is trained for itself, as a
    slimmable network with one switch, whose training leaves the holdout out.
    """
    base = chosen.base
    only = {"width": 1.0, "min_width": 0.9, "bn": "switchable", "widths": [1.0], "samples": 2}
    directory = write_recipe(chosen, seed, "warm-base", supernet=only, train={"epochs": base.base_epochs})
    trained = autoslim("train-supernet", "-r", directory, "--resume")
    (flops,) = {row["flops"] for row in trained["widths"].values()}
    start = autoslim("extract", "-r", directory, "--width", "1.0")
    weights = os.path.relpath(start["path"], chosen.place(seed, "warm"))
    changes: Row = {"model": {"weights": weights}, "supernet": {"width": base.warm_width}}
    row = _supernet(chosen, seed, "warm", base.warm_epochs, **changes)
    first = accounting.training(flops, base.train_images - base.holdout, base.base_epochs)
    return {**row, "multiply_adds": first + row["multiply_adds"], "seconds": trained["wall"] + row["seconds"]}


def _supernet(chosen: Chosen, seed: int, part: str, epochs: int, **changes: Any) -> Row:
    """Train a supernet; return its row."""
    base = chosen.base
    directory = write_recipe(chosen, seed, part, **changes, train={"epochs": epochs})
    made = autoslim("train-supernet", "-r", directory, "--resume")
    costs = [row["flops"] for row in made["widths"].values()]
    settings = autoslim("recipes", "show", directory)["supernet"]
    mean = {"budget": None, "per-unit": middle_flops(directory)}[settings["sampling"]]
    images = base.train_images - base.holdout
    return {
        "largest": max(costs),
        "smallest": min(costs),
        "epochs": epochs,
        "sampling": settings["sampling"],
        "multiply_adds": accounting.sandwich(max(costs), min(costs), settings["samples"], images, epochs, mean),
        "seconds": made["wall"],
    }


def middle_flops(directory: Path) -> int:
    """Return the FLOPs of the mean counts: about the mean FLOPs where each unit is drawn alone, evenly."""
    said = autoslim("units", "-r", directory)
    units = [unit for unit in said["units"] if unit["pinned"] is None]
    channels = {unit["name"]: (unit["min"] + unit["supernet"]) // 2 // unit["step"] * unit["step"] for unit in units}
    config = directory / "middle.json"
    config.write_text(config_text(said["model"], channels, "middle"))
    flops: int = autoslim("info", config)["flops"]
    return flops
