"""Set a network found by latency beside one found by FLOPs that is as fast on this machine, by ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from found import Bench
from plan import TRAININGS, add_row, open_seed, place, rows_of

from autoslim_cli.latency.table import Engine

ENGINE: Engine = "onnxruntime"
LATENCY = 0.5
"""The latency budget, as a share of the base network's."""

TIMED = 6
"""How many of the networks found by FLOPs are timed beside the one found by latency: the one as fast is kept."""

FILE = "fast.jsonl"


def fast(seeds: Sequence[int]) -> None:
    """Search by latency and by FLOPs, measure both networks in turn, and train both from scratch."""
    from autoslim_cli.latency.local_device import local_device
    from autoslim_cli.latency.table import read_table, table_name
    from autoslim_cli.stages.profile import profile
    from autoslim_cli.stages.retrain import retrain

    for seed in seeds:
        project = open_seed(seed)
        table = project.directory / table_name(local_device(project.device, ENGINE, "fp32", 1, True))
        if not table.exists() or not read_table(table).complete:
            profile(project, engine=ENGINE, dtype="fp32", batch=1, channels_last=True, resume=True)
        rows = {row["found_by"]: row for row in rows_of(seed, FILE) if "found_by" in row}
        if not rows:
            rows = chosen(Bench(seed), seed, table)
        done = {(row["trained"], row["training"]) for row in rows_of(seed, FILE) if "trained" in row}
        for training in (seed + 10 * run for run in range(TRAININGS)):
            for name, row in rows.items():
                if (name, training) not in done:
                    own = open_seed(seed, training=training)
                    result = retrain(own, f"study-fast-{name}-{training}", row["channels"], resume=True)
                    add_row(seed, FILE, {"trained": name, "training": training, "test_top1": result["top1"]})


def chosen(bench: Bench, seed: int, table: Path) -> dict[str, dict[str, Any]]:
    """Return the network of a latency budget, and of all FLOPs budgets the one that is as fast."""
    from autoslim_cli.cost.budget import Bound, Budget
    from autoslim_cli.latency.building import build_network
    from autoslim_cli.latency.engines import load
    from autoslim_cli.latency.table import read_table
    from autoslim_cli.latency.timing import ROUNDS, time_interleaved
    from autoslim_cli.stages.project import with_latency

    bench.project = project = with_latency(bench.project, table)
    base = project.costs(project.network.base)
    limit = LATENCY * base["latency"]
    (by_latency,) = bench.answers("stride 0.05", (Budget((Bound("latency", f"{LATENCY:.0%}", limit),)),))
    floor = project.costs["flops"](project.network.space.smallest) / base["flops"]
    shares = [share for share in range(95, 3, -3) if share / 100 > floor]
    budgets = tuple(Budget((Bound("flops", f"{s}%", base["flops"] * s // 100),)) for s in shares)
    by_flops = [facts for _, facts in bench.answers("stride 0.05", budgets)]
    wanted = project.costs["latency"](by_latency[1]["channels"])
    nearest = sorted(by_flops, key=lambda row: abs(project.costs["latency"](row["channels"]) - wanted))[:TIMED]
    timed = [by_latency[1], *nearest]
    networks = [build_network(project.network.reading, row["channels"], 1) for row in timed]
    runs = [load(*network, read_table(table).device, project.device) for network in networks]
    times = time_interleaved(runs, project.device, 20 * ROUNDS)
    for row, (ms, spread) in zip(timed, times, strict=True):
        row |= {"predicted_ms": project.costs["latency"](row["channels"]), "measured_ms": ms, "spread": spread}
    equal = min(nearest, key=lambda row: abs(row["measured_ms"] - times[0][0]))
    rows = {"latency": timed[0], "flops": equal}
    for name, row in rows.items():
        row["found_by"] = name
        add_row(seed, FILE, {**row, "base_ms": base["latency"]})
    return rows


def report_fast(seeds: Sequence[int]) -> None:
    """Print both networks of each seed, and how well its table predicts."""
    from autoslim_cli.latency.table import read_table

    for seed in seeds:
        for path in place(seed).glob(f"latency-*-{ENGINE}.json"):
            table = read_table(path)
            points = sum(len(layer.ms) for layer in table.layers)
            figures = table.check.model_dump() if table.check else {}
            print(f"\nseed {seed}: {points} points of {len(table.layers)} layer shapes; {figures}")
    print(
        "\n| seed | found by | FLOPs | predicted ms | measured ms | supernet's loss | test top-1 |\n"
        + "| --- " * 7
        + "|"
    )
    for seed in seeds:
        rows = rows_of(seed, FILE)
        for row in (row for row in rows if "found_by" in row):
            tops = [r["test_top1"] for r in rows if r.get("trained") == row["found_by"]]
            ms = f"{row['predicted_ms']:.3f} | {row['measured_ms']:.3f}"
            trained = ", ".join(f"{100 * top:.1f}" for top in tops)
            print(f"| {seed} | {row['found_by']} | {row['flops']:,} | {ms} | {row['loss']:.3f} | {trained} |")
