"""Show super-resolution and segmentation on real pixels: searched beside one width, three seeds (docs/tasks-shown.md).

    python benchmarks/tasks [--tasks super-resolution segmentation] [--seeds 0 1 2]    make what has no row yet
    python benchmarks/tasks report                                  the tables of docs/tasks-shown.md, from the rows
    python benchmarks/tasks pictures                                its figure (from the rows), pictures (from runs/)
    python benchmarks/tasks --quick --json                          all of it on a few images: does it run?

Needs data/photographs (scripts/make_photographs.py) and data/scenes (scripts/make_scenes.py). Rows are appended to
benchmarks/results/tasks/TASK.jsonl, networks lie in runs/tasks. About an hour of one CPU core in all; a stopped run
goes on where it stopped. One thread a process.
"""

import argparse
import json

import pictures
import tables
from made import make
from plan import SEEDS, TASKS, Chosen


def main() -> None:
    """Do what was asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", nargs="?", choices=("make", "report", "pictures"), default="make")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--quick", action="store_true", help="one seed, a few images, in runs/tasks-quick")
    parser.add_argument("--json", action="store_true", help="print the rows as one JSON object")
    options = parser.parse_args()
    seeds = options.seeds[:1] if options.quick else options.seeds
    chosen = Chosen(tuple(options.tasks), tuple(seeds), options.quick)
    if options.stage == "pictures":
        pictures.draw(chosen)
        return
    rows = make(chosen) if options.stage == "make" else tables.rows(chosen)
    if options.json:
        print(json.dumps({"rows": rows}))
    else:
        tables.report(rows)


if __name__ == "__main__":
    main()
