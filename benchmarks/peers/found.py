"""Find every source's channels for every budget: by autoslim's searches, and by the peers' scripts."""

import json
import os
from pathlib import Path
from typing import Any

from commands import autoslim, installed, peer
from plan import MEAN, PEERS, STD, Chosen, Row, add_row, find, rows_of, views, write_recipe

SEARCHES: dict[str, tuple[str, dict[str, Any]]] = {
    "one-width": ("supernet", {"strategy": "uniform"}),
    "ours": ("supernet", {}),
    "random": ("supernet", {"strategy": "random"}),
    "warm": ("warm", {}),
    "warm-one-width": ("warm", {"strategy": "uniform"}),
}
"""Sources that are searches of ours: the supernet that they ask, and what they change in the default search."""

SCRIPTS: dict[str, tuple[str, list[object]]] = {
    "torch-pruning-l2": ("torch_pruning_arm.py", ["--importance", "l2"]),
    "torch-pruning-taylor": ("torch_pruning_arm.py", ["--importance", "taylor"]),
    "fastnas": ("fastnas_arm.py", []),
}


def arms(chosen: Chosen) -> None:
    """Find what is not there yet, for this shard's seeds; a peer that is not installed is left out."""
    wanted = {arm.source for arm in chosen.wanted}
    for seed in chosen.seeds[chosen.shard :: chosen.shards]:
        budgets = budgets_of(chosen, seed)
        for source in [*SEARCHES, *SCRIPTS]:
            rows = rows_of(chosen.file("found"))
            missing = [share for share in budgets if not find(rows, seed=seed, source=source, share=share)]
            if source not in wanted or not missing:
                continue
            if source in PEERS and not installed(PEERS[source]):
                print(f"{PEERS[source]} is not installed: {source} is left out", flush=True)
                continue
            for row in (searched if source in SEARCHES else pruned)(chosen, seed, source, budgets):
                if row["share"] in missing:
                    add_row(chosen.file("found"), row)


def budgets_of(chosen: Chosen, seed: int) -> dict[int, int]:
    """Return the budgets in FLOPs, by share of the base network's."""
    base = find(rows_of(chosen.file("trained")), seed=seed, what="base")
    if base is None:
        raise SystemExit(f"the base network of seed {seed} is not trained: python benchmarks/peers train")
    return {share: base["flops"] * share // 100 for share in chosen.base.shares}


def searched(chosen: Chosen, seed: int, source: str, budgets: dict[int, int]) -> list[Row]:
    """Run one of autoslim's strategies, all budgets in one pass."""
    supernet, changes = SEARCHES[source]
    if source == "one-width" and find(rows_of(chosen.file("trained")), seed=seed, what=supernet) is None:
        supernet = "warm"  # one width is the same in any supernet, and that one is trained for arms more wanted
    if source == "random":  # as many evaluations for each budget as the search takes for all of them
        ours = find(rows_of(chosen.file("found")), seed=seed, source="ours")
        assert ours is not None, "the search comes first"
        changes = {**changes, "draws": ours["evaluations"]}
    recipe = json.loads((chosen.place(seed, supernet) / "recipe.yaml").read_text())
    settings = {**recipe["search"], **changes}
    same = {name: recipe[name] for name in ("model", "supernet")}
    directory = write_recipe(chosen, seed, source if source != "warm" else "warm-ours", search=settings, **same)
    link = directory / "supernet.safetensors"
    if not link.is_symlink():
        link.symlink_to(os.path.relpath(chosen.place(seed, supernet) / link.name, directory))
    flops = ",".join(map(str, budgets.values()))
    result = autoslim("search", "-r", directory, "--flops", flops, "--resume")
    took = {name: result[name] for name in ("evaluations", "multiply_adds", "seconds", "wall")}
    rows = []
    for config, (share, budget) in zip(result["configs"], budgets.items(), strict=True):
        channels = json.loads(Path(config["path"]).read_text())["channels"]
        facts = {"loss": config["loss"], "holdout_top1": config["top1"]}
        row = found_row(seed, source, share, budget, config["flops"], channels, config["path"])
        rows.append({**row, **took, **facts})
    return rows


def pruned(chosen: Chosen, seed: int, source: str, budgets: dict[int, int]) -> list[Row]:
    """Run a peer's script on the trained base network, all budgets in one pass."""
    script, more = SCRIPTS[source]
    base = find(rows_of(chosen.file("trained")), seed=seed, what="base")
    assert base is not None
    out = chosen.place(seed, source)
    out.mkdir(parents=True, exist_ok=True)
    said = prune(chosen, seed, source, script, out, Path(base["path"]), budgets, *more)
    took = {name: said.get(name) for name in ("evaluations", "multiply_adds", "seconds", "wall", "version")}
    rows = []
    for share, budget in budgets.items():
        if facts := find(said["found"], budget=budget):
            path = str(out / f"arch-{budget}.json")
            row = found_row(seed, source, share, budget, facts["flops"], facts["channels"], path)
            before = {"fill_before": facts["fill_before"]} if "fill_before" in facts else {}
            rows.append({**row, **took, **before, "weights": str(out / f"weights-{budget}.safetensors")})
        else:
            print(f"{source}, seed {seed}: {budget} FLOPs is out of its reach", flush=True)
    return rows


def prune(
    chosen: Chosen,
    seed: int,
    source: str,
    script: str,
    out: Path,
    base: Path,
    budgets: dict[int, int],
    *more: object,
) -> dict[str, Any]:
    """Hand a peer the base network, its units, its images and the budgets."""
    units = out / "units.json"
    units.write_text(json.dumps(autoslim("units", "-r", base.parent)))
    images = views(chosen, seed)
    steps = ["--steps", chosen.base.steps] if "torch-pruning" in source else ["--calibrate", chosen.base.calibrate]
    return peer(
        PEERS[source],
        script,
        *("--base", base.resolve(), "--units", units.resolve(), "--flops", *budgets.values()),
        *("--divisor", chosen.base.space["divisor"], "--seed", seed, "--out", out.resolve()),
        *("--train", images.resolve() / "known/train", "--held", images.resolve() / "held/train"),
        *("--mean", *MEAN, "--std", *STD, *steps, *more),
    )


def found_row(seed: int, source: str, share: int, budget: int, flops: int, channels: dict[str, int], path: str) -> Row:
    """Return what every source's row holds."""
    where = {"flops": flops, "fill": round(flops / budget, 4), "channels": channels, "arch": path}
    return {"seed": seed, "source": source, "share": share, "budget": budget, **where}
