"""A stage with a number of processes: left alone once, then killed until there were enough kills."""

import argparse
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from contents import WHERE, contents, differences, stamps, where_it_hit
from processes import Start, started
from stages import NAME, RECIPE, STAGES, Stage, write_images

IN_A_ROW = 8
BAD = ("differing", "left", "hangs", "tracebacks", "failed")


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
        write_images(place / "images")
        for command in stage.after:
            started(place, command, 1)
        shutil.copytree(directory, inputs)
        started(place, stage.command, cell.processes)
        expected = Undisturbed(contents(directory), 0.0)
        # 2. A fork does the same; how long does it take?
        _afresh(directory, inputs)
        start = Start(place, stage.command, cell.processes, arguments.limit)
        if not start.ended() or start.code:
            sys.exit(f"{stage.command}: a fork ended with {start.code}: {start.words()}")
        if wrong := differences(contents(directory), expected.files):
            sys.exit(f"{stage.command}: a fork makes something else than what a person starts: {wrong}")
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


def told(cell: Cell) -> None:
    """Say on stderr how far a cell is."""
    bad = ", ".join(f"{getattr(cell, name)} {name}" for name in BAD)
    where = ", ".join(f"{count} {name}" for name, count in cell.where.items())
    print(f"{cell.stage}, {cell.processes}: {cell.kills} kills ({where}); {bad}", file=sys.stderr)
