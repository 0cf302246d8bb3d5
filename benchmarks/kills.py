"""Kill every stage with SIGKILL at random moments, go on with --resume, and compare all bytes with a run left alone.

python benchmarks/kills.py [--kills 20] [--seed 0] [--stages run ...] [--processes 1 2] [--output FILE] [--keep DIR]

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
import importlib
import json
import os
import pkgutil
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn

ROOT = Path(__file__).parents[1]
NAME = "tiny"
RECIPE = """
format: autoslim.recipe/1
model: {name: autoslim/cifar_resnet, args: {depth: 8, in_channels: 1, width: 8}, input: [1, 8, 8], classes: 10}
data: {name: digits, holdout: 150, limit: 600, augment: {crop: pad, padding: 1, flip: true}}
space: {groups: 6, divisor: 2}
supernet: {width: 1.5, min_width: 0.25}
train: {epochs: 3, batch: 64, lr: 0.5, keep: best, ema: 0.5, keep_states: 2, save_minutes: 0.00001}
calibrate: {images: 256, batch: 128}
search: {batch: 75}
retrain: {epochs: 3, batch: 64, lr: 0.5, keep: best, schedule: cosine, save_minutes: 0.00001}
device: cpu
"""
HERE = ("-r", NAME)
SUPERNET = ["train-supernet", *HERE]
SEARCH = ["search", "--flops", "60%,30%", *HERE]
ARCHS = [f"{NAME}/arch-60pct.json", f"{NAME}/arch-30pct.json"]
CLOCK = ("seconds", "images_per_second", "waiting", "memory")
"""What no two runs have in common: of lines of metrics, and of searches' logs."""
IN_A_ROW = 8
BAD = ("differing", "left", "hangs", "tracebacks", "failed")
WHERE = ("before its first write", "between writes", "in a write", "after its last write")


@dataclass(frozen=True)
class Stage:
    """A command, and those that make what it needs."""

    command: list[str]
    after: tuple[list[str], ...] = ()
    resume: tuple[str, ...] = ("--resume",)


STAGES = {
    "train-supernet": Stage(SUPERNET),
    "calibrate-bn": Stage(["calibrate-bn", "--widths", "0.25:1.5:0.05", *HERE], (SUPERNET,)),
    "search": Stage(SEARCH, (SUPERNET,)),
    "retrain": Stage(["retrain", ARCHS[0]], (SUPERNET, SEARCH)),
    "retrain --joint": Stage(["retrain", *ARCHS, "--joint"], (SUPERNET, SEARCH)),
    "run": Stage(["run", "--flops", "50%", *HERE], resume=()),  # which always goes on
}


@dataclass
class Cell:
    """What came of a stage with a number of processes."""

    stage: str
    processes: int
    seed: int
    wanted: int
    kills: int = 0
    all_at_once: int = 0
    workers: int = 0
    where: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WHERE, 0))
    starts: int = 0
    resumed: int = 0
    compared: int = 0
    files: int = 0
    differing: int = 0
    left: int = 0
    hangs: int = 0
    tracebacks: int = 0
    failed: int = 0
    slowest_end: float = 0.0
    """Seconds from the kill of a worker to the end of the job."""
    notes: list[str] = field(default_factory=list)
    cpu_seconds: float = 0.0


# 1. What a directory holds.


def contents(directory: Path) -> dict[str, bytes]:
    """Return what is compared of each file, by name: its bytes, of lines of JSON those without what a clock said."""
    return {path.name: _content(path) for path in _shown(directory)}


def _shown(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if not path.name.startswith("."))


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix != ".jsonl" or not content.endswith(b"\n"):
        return content
    rows = [json.loads(line) for line in content.splitlines()]
    return "".join(json.dumps({k: v for k, v in row.items() if k not in CLOCK}) + "\n" for row in rows).encode()


def differences(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Name the files that differ, are missing, or should not be there."""
    names = sorted({*found, *expected})
    kind = {name: "differs" if name in found else "is missing" for name in expected}
    return [f"{name} {kind.get(name, 'is left')}" for name in names if found.get(name) != expected.get(name)]


def stamps(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Return what changes of a file that is written; locks hold no work."""
    found = {}
    for path in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.suffix != ".lock":
                status = path.stat()
                found[path.name] = status.st_ino, status.st_size, status.st_mtime_ns
    return found


def where_it_hit(directory: Path, before: dict[str, tuple[int, int, int]], expected: dict[str, bytes]) -> str:
    """Say where in its work a start was killed."""
    now = stamps(directory)
    torn = any(not path.read_bytes().endswith(b"\n") for path in directory.glob("*.jsonl") if path.exists())
    if torn or any(name.endswith(".part") for name in now.keys() - before.keys()):
        return WHERE[2]
    with contextlib.suppress(FileNotFoundError):  # the other workers may still be at work
        if not differences(contents(directory), expected):
            return WHERE[3]
    return WHERE[0] if now == before else WHERE[1]


# 2. Processes.


def tree(process: int) -> list[int]:
    """Return a process and all that it started, as far as they are there."""
    found = [process]
    for one in found:
        with contextlib.suppress(OSError):
            for path in Path(f"/proc/{one}/task").glob("*/children"):
                found += map(int, path.read_text().split())
    return found


def cpu_of(processes: Iterable[int]) -> float:
    """Return the seconds of CPU time that processes took, with those that they waited for."""
    ticks = 0
    for process in processes:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def started(place: Path, command: list[str], processes: int) -> None:
    """Run a command to its end, as a person does."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    words = [sys.executable, *(launcher if processes > 1 else []), "-m", "autoslim_cli", *command]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(words, cwd=place, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command} fails undisturbed: {done.stderr}")


def import_everything() -> None:
    """Import what commands import, so that forks need not."""
    import autoslim_cli

    for module in pkgutil.walk_packages(autoslim_cli.__path__, "autoslim_cli."):
        importlib.import_module(module.name)
    late = ("torch._dynamo", "torch._meta_registrations", "torch.distributed.launcher.api", "fvcore.nn")
    for name in (*late, "matplotlib.figure", "matplotlib.backends.backend_agg"):
        importlib.import_module(name)


def _become(place: Path, command: list[str], processes: int, said: IO[str]) -> NoReturn:
    """Be the command in this process, which was forked for it."""
    code = 1
    try:
        os.chdir(place)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(said.fileno(), 2)
        sys.argv = ["autoslim", *command]
        if processes > 1:
            _be_torchrun(processes)
        else:
            _be_worker()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _be_torchrun(processes: int) -> None:
    """Be torchrun --standalone: start the workers, and end them all if one dies."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="fork",
    )
    elastic_launch(config, _be_worker)()


def _be_worker() -> None:
    """Be `autoslim`, with the signals of a new process."""
    from autoslim_cli.__main__ import main

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise


class Start:
    """A command that runs as a fork of this process, and what it says."""

    def __init__(self, place: Path, command: list[str], processes: int, limit: float) -> None:
        self.said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  it goes with this object
        self.deadline = time.monotonic() + limit
        self.code: int | None = None
        self.cpu = 0.0
        sys.stderr.flush()
        self.process = os.fork()
        if not self.process:
            _become(place, command, processes, self.said)

    def over(self) -> bool:
        """Tell whether it has ended; its code and CPU time are known then."""
        if self.code is None:
            process, status, used = os.wait4(self.process, os.WNOHANG)
            if process:
                self.code, self.cpu = os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        return self.code is not None

    def reached(self, cpu: float, directory: Path | None = None) -> bool:
        """Wait until it took so much CPU time, and, of a directory, writes a file there; False if it ends before."""
        while not self.over() and time.monotonic() < self.deadline:
            if cpu_of(tree(self.process)) < cpu:
                time.sleep(0.005)
            elif directory is None or any(directory.glob(".*.part")):
                return True
            else:
                time.sleep(0.0005)
        return False

    def ended(self) -> bool:
        """Wait for its end; False if it hangs: then it is killed."""
        while not self.over():
            if time.monotonic() > self.deadline:
                self.kill_all()
                return False
            time.sleep(0.01)
        return True

    def kill_all(self) -> None:
        """Kill all processes at once: the first is stopped before, so that it starts no more."""
        os.kill(self.process, signal.SIGSTOP)
        for one in tree(self.process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        while not self.over():
            time.sleep(0.001)

    def kill_worker(self, rng: random.Random) -> bool:
        """Kill one of the workers; False if there are none yet."""
        workers = tree(self.process)[1:]
        if not workers:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(workers), signal.SIGKILL)
        return True

    def words(self) -> str:
        """Return what it said on stderr."""
        self.said.seek(0)
        return self.said.read()


# 3. A cell: undisturbed, then killed.


@dataclass
class Undisturbed:
    """What a stage makes when it is left alone, and the CPU time that a fork takes for it."""

    files: dict[str, bytes]
    cpu: float


def measured(cell: Cell, arguments: argparse.Namespace) -> None:
    """Kill a stage until there were enough kills."""
    stage, rng = STAGES[cell.stage], random.Random(f"{cell.seed}-{cell.stage}-{cell.processes}")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        directory, inputs = place / NAME, place / "inputs"
        # 1. What the stage needs, and what it makes of that.
        directory.mkdir()
        (directory / "recipe.yaml").write_text(RECIPE)
        for command in stage.after:
            started(place, command, 1)
        shutil.copytree(directory, inputs)
        started(place, stage.command, cell.processes)
        expected = Undisturbed(contents(directory), 0.0)
        # 2. A fork does the same; how long does it take?
        _afresh(directory, inputs)
        start = Start(place, stage.command, cell.processes, arguments.limit)
        if not start.ended() or start.code or (wrong := differences(contents(directory), expected.files)):
            sys.exit(f"{stage.command}: a fork is not what a person starts: {wrong or start.words()}")
        expected.cpu = start.cpu
        cell.cpu_seconds += start.cpu
        # 3. Now with kills.
        while cell.kills < cell.wanted:
            _afresh(directory, inputs)
            killed_in_a_row(cell, stage, place, expected, rng, arguments)
            told(cell)
    cell.cpu_seconds = round(cell.cpu_seconds, 1)


def _afresh(directory: Path, inputs: Path) -> None:
    """Bring a directory back to what a stage begins with."""
    shutil.rmtree(directory)
    shutil.copytree(inputs, directory)


def killed_in_a_row(
    cell: Cell, stage: Stage, place: Path, expected: Undisturbed, rng: random.Random, arguments: argparse.Namespace
) -> None:
    """Start a stage and kill it until a start ends; compare what it made."""
    directory, history = place / NAME, list[str]()
    for number in range(IN_A_ROW + 1):
        before = stamps(directory)
        start = Start(place, [*stage.command, *(stage.resume if number else ())], cell.processes, arguments.limit)
        cell.starts += 1
        cell.resumed += number > 0
        moment = rng.uniform(0, expected.cpu)
        in_write, of_worker = rng.random() < 0.25, cell.processes > 1 and rng.random() < 0.5
        last = number == IN_A_ROW or cell.kills == cell.wanted
        if not last and start.reached(moment, directory if in_write else None):
            # 1. Kill it, and see where that hit.
            at = time.monotonic()
            alone = of_worker and start.kill_worker(rng)
            if not alone:
                start.kill_all()
            hit = where_it_hit(directory, before, expected.files)
            cell.kills += 1
            cell.workers += alone
            cell.all_at_once += not alone
            cell.where[hit] += 1
            cell.cpu_seconds += moment
            history.append(f"{moment:.2f} s, {'a worker' if alone else 'all'}, {hit}")
            # 2. What is left of it must end by itself, and say why in a line.
            if alone:
                cell.hangs += not start.ended()
                cell.slowest_end = max(cell.slowest_end, round(time.monotonic() - at, 1))
            _judge(cell, start, history)
            continue
        # 3. A start that was left alone ends the work.
        cell.hangs += (hung := not start.ended())
        cell.cpu_seconds += start.cpu
        if hung:
            cell.notes.append(f"hangs after {history}: {start.words()[-500:]}")
            break
        _judge(cell, start, history)
        if start.code:
            cell.failed += 1
            cell.notes.append(f"fails after {history}: {start.words()[-500:]}")
        break
    # 4. All bytes are those of a run that nobody killed, and nothing else is left.
    wrong = differences(contents(directory), expected.files)
    left = sorted(path.name for path in directory.iterdir() if path.name.startswith("."))
    cell.compared += 1
    cell.files += len(expected.files)
    cell.differing += len(wrong)
    cell.left += len(left)
    if wrong or left:
        cell.notes.append(f"after {history}: {', '.join(wrong + left)}")
        if arguments.keep:
            kept = arguments.keep / f"{cell.stage.replace(' ', '')}-{cell.processes}-{cell.compared}"
            shutil.copytree(directory, kept, dirs_exist_ok=True)


def _judge(cell: Cell, start: Start, history: list[str]) -> None:
    """Count a traceback of autoslim's; torchrun has one of its own for a worker that was killed."""
    said = start.words()
    if any("autoslim_cli" in part for part in said.split("Traceback (most recent call last)")[1:]):
        cell.tracebacks += 1
        cell.notes.append(f"traceback after {history}: {said[-1500:]}")


# 4. What is said of it.


def told(cell: Cell) -> None:
    """Say on stderr how far a cell is."""
    bad = ", ".join(f"{getattr(cell, name)} {name}" for name in BAD)
    where = ", ".join(f"{count} {name}" for name, count in cell.where.items())
    print(f"{cell.stage}, {cell.processes}: {cell.kills} kills ({where}); {bad}", file=sys.stderr)


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
