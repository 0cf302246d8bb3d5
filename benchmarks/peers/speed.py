"""Time our search and FastNAS's on the same network and images, one after the other."""

import json
import statistics
from pathlib import Path

from commands import autoslim, installed
from found import budgets_of, prune
from plan import Chosen, add_row, find, rows_of, write_recipe


def speed(chosen: Chosen, repeats: int = 1) -> None:
    """Search to the first budget from nothing, ours and FastNAS in turn; print and append both rows.

    Both have one base network, and score as many images of one training set: held back by each from its own training.
    """
    seed = chosen.seeds[0]
    share = chosen.base.shares[0]
    budget = budgets_of(chosen, seed)[share]
    base = find(rows_of(chosen.file("trained")), seed=seed, what="base")
    assert base is not None
    for repeat in range(repeats):
        directory = write_recipe(chosen, seed, "speed")
        for name in ("search.jsonl", "supernet.safetensors"):
            (directory / name).unlink(missing_ok=True)
        (directory / "supernet.safetensors").symlink_to("../supernet/supernet.safetensors")
        ours = autoslim("search", "-r", directory, "--flops", budget)
        rows = {"autoslim": (ours, ours["configs"][0]["flops"])}
        if installed("fastnas"):
            out = chosen.place(seed, "speed-fastnas")
            out.mkdir(parents=True, exist_ok=True)
            said = prune(chosen, seed, "fastnas", "fastnas_arm.py", out, Path(base["path"]), {share: budget})
            rows["fastnas"] = (said, said["found"][0]["flops"])
        else:
            print("fastnas is not installed: ours alone", flush=True)
        for tool, (said, flops) in rows.items():
            took = {name: said[name] for name in ("evaluations", "multiply_adds", "seconds", "wall")}
            row = {"tool": tool, "seed": seed, "repeat": repeat, "budget": budget, "flops": flops}
            add_row(chosen.file("speed"), {**row, "images": chosen.base.holdout, **took})
            print(json.dumps({**row, **took}), flush=True)


def report_speed(chosen: Chosen) -> None:
    """Print what both took, the median over repeats."""
    rows = rows_of(chosen.file("speed"))
    if not rows:
        return
    print("\n| search | evaluations | images each | multiply-adds | seconds | with start and loading | runs |")
    print("| --- " * 7 + "|")
    for tool in dict.fromkeys(row["tool"] for row in rows):
        some = [row for row in rows if row["tool"] == tool]
        middle = {name: statistics.median(row[name] for row in some) for name in some[0] if name not in ("tool",)}
        cells = f"{middle['evaluations']:.0f} | {middle['images']:.0f} | {middle['multiply_adds']:.2e}"
        print(f"| {tool} | {cells} | {middle['seconds']:.1f} | {middle['wall']:.1f} | {len(some)} |")
