"""Kill every stage with SIGKILL at random moments, go on with --resume, and compare all bytes with a run left alone.

python benchmarks/kills [--kills 20] [--seed 0] [--stages run ...] [--processes 1 2] [--output FILE] [--keep DIR]

A stage is a command on a tiny recipe of the embedded digits that saves after every step. It runs once undisturbed, as a
person starts it (with several processes by torchrun, over gloo). Then it is started afresh and killed, and what goes on
with --resume is killed again, until a start ends before its moment comes (after eight kills in a row one is left
alone); then every file of the recipe's directory must hold the same bytes. In lines of metrics and scores, what a clock
measured and the process's memory are left out: `CLOCK` lists them. This is repeated until there were `--kills` kills.

Starts that are killed are forks of this process, which has imported everything: three quarters of such a short command
are imports, and a kill there touches no file. Several processes are torchrun's agent and its workers, forked alike.
Moments are drawn evenly over the CPU time that a start takes when it is left alone; one kill in four waits from there
for the next write of a file and comes in it. Of several processes one kill in two is of all, agent and workers, the
others of one worker: the agent must then end the rest.

Prints where the kills hit, and what must be 0: `differing` files, `left` locks and half-written files, `hangs` (no end
within `--limit` seconds), `tracebacks` of autoslim's, and `failed` starts that were not killed. Cells (a stage and a
number of processes) that `--output` holds are not run again. `--keep` copies directories that differ.
"""

import argparse
import contextlib
import json
import os
import platform
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cell import BAD, Cell, measured
from processes import import_everything
from stages import STAGES


def machine() -> dict[str, Any]:
    """Say what this ran on."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), processor)
    cores = len(os.sched_getaffinity(0))
    return {"processor": processor, "cores": cores, "system": platform.system(), "python": platform.python_version()}


def options() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="kills of each stage with each number of processes")
    parser.add_argument("--seed", type=int, default=0, help="which moments")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), metavar="STAGE")
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2], help="1, and more by torchrun")
    parser.add_argument("--limit", type=float, default=600, help="seconds after which a command hangs")
    parser.add_argument("--output", type=Path, help="a JSON file of cells that are not run again")
    parser.add_argument("--keep", type=Path, help="a directory for those that differ")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def main() -> None:
    """Measure each stage with each number of processes; exit with 1 if anything is wrong."""
    arguments = options()
    os.environ["OMP_NUM_THREADS"] = "1"
    warnings.simplefilter("ignore")
    import_everything()
    result: dict[str, Any] = {"machine": machine(), "cells": []}
    if arguments.output and arguments.output.exists():
        result = json.loads(arguments.output.read_text())
    cells = []
    for name in arguments.stages:
        for processes in arguments.processes:
            cell = asdict(Cell(name, processes, arguments.seed, arguments.kills))
            same = ("stage", "processes", "seed", "wanted")
            known = [row for row in result["cells"] if all(row[key] == cell[key] for key in same)]
            if not known:
                fresh = Cell(name, processes, arguments.seed, arguments.kills)
                measured(fresh, arguments)
                known = [asdict(fresh)]
                result["cells"] += known
                if arguments.output:
                    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
            cells += known
    result["cells"] = cells
    if arguments.json:
        print(json.dumps(result))
    else:
        for row in cells:
            print(row["stage"], row["processes"], f"{row['kills']} kills", *(f"{row[key]} {key}" for key in BAD))
            print(*(f"    {note}" for note in row["notes"]), sep="\n", end="\n" if row["notes"] else "")
    sys.exit(1 if any(row[key] for row in cells for key in BAD) else 0)


if __name__ == "__main__":
    main()
