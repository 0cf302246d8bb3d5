"""Write down how a training goes: a line of JSON for every few steps and every epoch."""

import json
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from autoslim_cli.files.atomic import write_text
from autoslim_cli.machine import memory_used
from autoslim_cli.training.job import Losses
from autoslim_cli.training.trackers import Log, flat

Value = TypeVar("Value")


class Metrics:
    """A file of metrics of a training: one JSON object a line, whole lines only.

    A training that goes on after some steps drops the lines of later ones, and of looks at the holdout that come again
    since their epoch is not over; one that begins drops all. Without a path nothing is written: only the first process
    of a job writes. `log` takes every row as well.
    """

    def __init__(self, path: Path | None, *, done: int, over: int, log: Log) -> None:
        self.path, self.log = path, log
        rows = [row for row in read_metrics(path) if row["step"] <= done and done] if path else []
        rows = [row for row in rows if "holdout" not in row or row.get("epoch") in range(over + 1)]
        self.before = list(_looks(rows))
        """The looks of a training that goes on: after which step, and the first mean loss since the last one."""
        if path:
            write_text(path, "".join(json.dumps(row) + "\n" for row in rows))

    def of_epoch(self, start: int) -> list[tuple[int, float]]:
        """Return how many steps each look before this process was over, and their mean loss, after step `start`."""
        found = [(step, loss) for step, loss in self.before if step > start]
        steps = [step for step, _ in found]
        return [(step - last, loss) for last, (step, loss) in zip([start, *steps], found, strict=False)]

    def add(self, row: dict[str, Any]) -> None:
        """Append a line. What a kill cuts short is dropped by the training that goes on."""
        if self.path:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            self.log(flat(row), row["step"])


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file of metrics that there may be; a line cut short ends it."""
    rows: list[dict[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return rows
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            break
        rows.append(row)
    return rows


def _looks(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[int, float]]:
    """Yield the steps of looks and their first losses."""
    for row in rows:
        losses = row.get("loss")
        loss = next(iter(losses.values()), None) if isinstance(losses, dict) else None
        if isinstance(loss, int | float) and math.isfinite(loss):
            yield row["step"], float(loss)


@dataclass
class Stretch:
    """The steps since somebody looked: their losses, which stay on the device until then, and the time they took."""

    losses: list[Losses] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    waited: float = 0.0

    def batches(self, batches: Iterable[Value]) -> Iterator[Value]:
        """Yield batches, and note how long each was waited for."""
        source = iter(batches)
        while True:
            asked = time.monotonic()
            try:
                batch = next(source)
            except StopIteration:
                return
            self.waited += time.monotonic() - asked
            yield batch

    def look(self, batch: int, device: torch.device) -> dict[str, Any]:
        """Return the mean losses, the speed, the share of waiting and the memory, and begin another stretch.

        This is the one place where a training waits for the work in flight.
        """
        names = list(self.losses[0])
        means = torch.stack([torch.stack([losses[name] for losses in self.losses]).mean() for name in names]).tolist()
        now = time.monotonic()
        seconds = max(now - self.started, 1e-9)
        row = {
            "loss": dict(zip(names, means, strict=True)),
            "images_per_second": round(len(self.losses) * batch / seconds, 1),
            "waiting": round(self.waited / seconds, 4),
            "memory": memory_used(device),
        }
        self.losses, self.started, self.waited = [], now, 0.0
        return row


def all_finite(losses: dict[str, float]) -> bool:
    """Tell whether mean losses are numbers: one that is not makes a mean that is not."""
    return all(map(math.isfinite, losses.values()))
