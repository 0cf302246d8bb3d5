"""Compare what autoslim finds with one width, random channels, Torch-Pruning and NVIDIA modelopt's FastNAS.

docs/proof.md has the protocol. Everything is driven by autoslim's command line and the peers' own scripts; what is made
lies in runs/peers, and every result is a row of benchmarks/results/peers. Every stage skips what is there.

    python benchmarks/peers train      the base networks and the supernets
    python benchmarks/peers arms       channels of every source at every budget
    python benchmarks/peers final      every arm's network, trained and measured on the test set
    python benchmarks/peers speed      our search and FastNAS's on one network, timed
    python benchmarks/peers schedules  how to fine-tune, judged on the holdout (--base flat or doubling, for trials)
    python benchmarks/peers evolution  does evolution from the search's answer find better channels (the same)
    python benchmarks/peers report     the tables of docs/proof.md
    python benchmarks/peers --quick    all of it on a small network and few images: whether everything runs

`--base`, before or after the stage, chooses the base network; processes with different --shard of --shards, or
different --seeds, run side by side (with one thread and one core each). A peer that is not installed is left out:
PEERS_TORCH_PRUNING_PYTHON and PEERS_FASTNAS_PYTHON name the python that has it.
"""

import argparse
import json
import shutil
import sys
import time
from contextlib import redirect_stdout

from commands import installed
from evolution import evolution
from final import final
from found import arms
from plan import ARMS, BASES, HERE, PROVEN, TOOLS, Chosen, rows_of
from report import report
from schedules import schedules
from speed import report_speed, speed
from trained import train

STAGES = ("train", "arms", "final", "speed", "schedules", "evolution", "report")


def quick(*, as_json: bool, keep: bool) -> None:
    """Run everything once on the quick base, from nothing unless `keep`; print every arm."""
    began = time.perf_counter()
    if not keep:
        shutil.rmtree(HERE / "quick", ignore_errors=True)
    chosen = Chosen("quick", [0])
    with redirect_stdout(sys.stderr):
        for stage in (train, arms, final, speed):
            stage(chosen)
    rows = rows_of(chosen.file("final"))
    if not as_json:
        report(["quick"])
        report_speed(chosen)
        return
    wanted = ("arm", "family", "flops", "top1", "multiply_adds", "parts", "budget", "fill", "epochs", "start")
    found = [{name: row[name] for name in wanted} for row in rows]
    timed = [
        {name: row[name] for name in ("tool", "evaluations", "multiply_adds", "seconds", "wall")}
        for row in rows_of(chosen.file("speed"))
    ]
    result = {
        "base": chosen.base.about,
        "counted": "multiply-adds of convolutions and linear layers; a training step counts as three forward passes",
        "arms": found,
        "not_installed": [tool for tool in TOOLS if not installed(tool)],
        "speed": timed,
        "seconds": round(time.perf_counter() - began, 1),
    }
    print(json.dumps(result, indent=2))


def main() -> None:
    """Run one stage, or all of them quickly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES, nargs="?")
    parser.add_argument("--quick", action="store_true", help="all stages on a small network, one seed")
    parser.add_argument("--json", action="store_true", help="with --quick: print one JSON object")
    parser.add_argument("--keep", action="store_true", help="with --quick: go on from what is there")
    parser.add_argument("--base", choices=BASES, default="resnet20")
    parser.add_argument("--seeds", type=int, nargs="+", help="the base network's own by default")
    parser.add_argument("--arms", nargs="+", choices=[arm.name for arm in ARMS], default=[], help="all by default")
    parser.add_argument("--shard", type=int, default=0)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1, help="of speed")
    given = parser.parse_args()
    if given.quick:
        quick(as_json=given.json, keep=given.keep)
        return
    if given.stage is None:
        parser.error("name a stage, or --quick")
    seeds = given.seeds or list(BASES[given.base].seeds)
    chosen = Chosen(given.base, seeds, given.arms, given.shard, given.shards)
    if given.stage == "report":
        report(PROVEN if given.base in PROVEN else [given.base])
        report_speed(chosen)
    elif given.stage == "speed":
        speed(chosen, given.repeats)
    else:
        {"train": train, "arms": arms, "final": final, "schedules": schedules, "evolution": evolution}[given.stage](
            chosen
        )


if __name__ == "__main__":
    main()
