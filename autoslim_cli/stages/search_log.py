"""Keep search.jsonl: what a search scored and decided, for people, and for a search that goes on from it."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoslim_cli.errors import ArtifactError
from autoslim_cli.files.atomic import write_text
from autoslim_cli.network.candidate import Candidate
from autoslim_cli.network.table import Channels
from autoslim_cli.stages.currency import decisive
from autoslim_cli.training.score import Score

LOG_FILE = "search.jsonl"
FORMAT = "autoslim.search/2"

Key = tuple[int, tuple[tuple[str, int], ...]]
"""A draw of images, and channels."""


@dataclass
class SearchLog:
    """A header that says what is searched, then a line for every scoring and one for every step.

    A scoring is kept by the draw and the channels that it scored, so a search that starts again answers itself from the
    log up to where it was stopped, whatever its strategy remembers. Only the `writing` process of a job touches it.
    """

    path: Path
    header: dict[str, Any]
    writing: bool = True
    scored: dict[Key, Score] = field(default_factory=dict)
    steps: set[str] = field(default_factory=set)
    seconds: float = 0.0
    multiply_adds: int = 0

    def start(self) -> None:
        """Begin a new log."""
        if self.writing:
            write_text(self.path, json.dumps(self.header) + "\n")

    def replay(self) -> None:
        """Read what is logged, dropping a line that a kill cut short; begin anew without a log.

        Raises ArtifactError if the log is of another supernet, holdout, space or strategy, or damaged.
        """
        rows = read_log(self.path)
        if rows is None:
            self.start()
            return
        if not rows or decisive(rows[0]) != decisive(self.header):
            raise ArtifactError(
                f"{self.path}: logs a search of another supernet, holdout, space or strategy; search anew without "
                "--resume"
            )
        units = list(self.header["largest"]["channels"])
        try:
            for row in rows[1:]:
                if "scored" in row:
                    self._learn(row, dict(zip(units, row["at"], strict=True)))
                else:
                    self.steps.add(_without_seconds(row))
        except (KeyError, TypeError, ValueError):
            raise ArtifactError(
                f"{self.path}: holds lines that are neither scores nor steps; search again without --resume"
            ) from None
        if self.writing and not self.path.read_bytes().endswith(b"\n"):
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))

    def _learn(self, row: dict[str, Any], channels: dict[str, int]) -> None:
        """Take over a scoring."""
        for changes, loss, top1 in row["scored"]:
            self.scored[key(channels, Candidate.of(changes), row["draw"])] = Score(loss, top1)
        self.seconds += row["seconds"]
        self.multiply_adds += row["multiply_adds"]

    def add_scores(
        self,
        channels: Channels,
        scores: dict[Candidate, Score],
        draw: int,
        *,
        seconds: float,
        multiply_adds: int,
    ) -> None:
        """Log a scoring before anything builds on it."""
        scored = [[dict(c.changes), score.loss, score.top1] for c, score in scores.items()]
        row = {"draw": draw, "at": list(channels.values()), "scored": scored}
        self._append({**row, "multiply_adds": multiply_adds, "seconds": round(seconds, 4)})
        for candidate, score in scores.items():
            self.scored[key(channels, candidate, draw)] = score
        self.seconds += seconds
        self.multiply_adds += multiply_adds

    def add_step(self, row: dict[str, Any]) -> None:
        """Log a step, unless the log has it."""
        if (text := _without_seconds(row)) not in self.steps:
            self.steps.add(text)
            self._append(row)

    def _append(self, row: dict[str, Any]) -> None:
        """Add one line and flush it to disk."""
        if not self.writing:
            return
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())


def read_log(path: Path) -> list[dict[str, Any]] | None:
    """Return the complete lines of a log, None without one. Raises ArtifactError naming a line that is damaged."""
    if not path.exists():
        return None
    rows = []
    lines: Sequence[str] = path.read_text(errors="replace").split("\n")
    for place, line in enumerate(lines[:-1]):  # the last piece has no newline: empty, or cut short
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            raise ArtifactError(f"{path}: line {place + 1} is damaged; search again without --resume") from None
    return rows


def read_steps(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log that are steps."""
    return [row for row in (read_log(path) or [])[1:] if "step" in row]


def key(channels: Channels, candidate: Candidate, draw: int) -> Key:
    """Return what a score is kept by."""
    return draw, tuple(candidate.applied(channels).items())


def _without_seconds(row: dict[str, Any]) -> str:
    """Return a step as text, without what a second run would not repeat."""
    return json.dumps({name: value for name, value in row.items() if name != "seconds"})
