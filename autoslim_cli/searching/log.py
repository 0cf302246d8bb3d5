"""Keep search.jsonl: what a search scored and decided, for people, and for a search that goes on from it."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from autoslim_cli.errors import LogError, StaleLogError
from autoslim_cli.files.atomic import write_text
from autoslim_cli.files.metric import TOP1, Metric
from autoslim_cli.files.provenance import decisive, difference
from autoslim_cli.network.table import Channels
from autoslim_cli.recipe.errors import explain
from autoslim_cli.searching.log_rows import DecisionRow, MeasuredRow, RunRow, ScoringRow, TrialRow
from autoslim_cli.slimming.candidate import Candidate
from autoslim_cli.training.score import Score

LOG_FILE = "search.jsonl"
FORMAT = "autoslim.search/3"

Key = tuple[int, tuple[tuple[str, int], ...]]
"""A draw of images, and channels."""


@dataclass
class SearchLog:
    """A header that says what scores depend on; then, run by run, what decides, and the scorings, steps and answers.

    A scoring is kept by the draw and the channels that it scored, so a search that starts again answers itself from
    the log up to where it was stopped, whatever its strategy remembers; one with other budgets or another strategy
    takes over what it can use. Only the `writing` process of a job touches the file.
    """

    path: Path
    header: dict[str, Any]
    writing: bool = True
    metric: Metric = TOP1
    scored: dict[Key, Score] = field(default_factory=dict)
    decided: set[str] = field(default_factory=set)
    took: list[tuple[frozenset[Key], float, int]] = field(default_factory=list)
    continues: bool = False
    measured: dict[tuple[str, tuple[int, ...]], float] = field(default_factory=dict)
    tried: dict[tuple[str, tuple[int, ...]], Score] = field(default_factory=dict)
    """Scores after a short training, by what it depended on and the counts."""

    def cost_of(self, asked: set[Key]) -> tuple[float, int]:
        """Return the seconds and the multiply-adds of the scorings that gave some scores."""
        used = [(seconds, work) for keys, seconds, work in self.took if not keys.isdisjoint(asked)]
        return sum(seconds for seconds, _ in used), sum(work for _, work in used)

    def start(self, run: dict[str, Any]) -> None:
        """Begin a new log with a run."""
        if self.writing:
            write_text(self.path, json.dumps(self.header) + "\n")
        self.add({"run": run})

    def replay(self, run: dict[str, Any], rows: list[dict[str, Any]] | None) -> None:
        """Take over the complete lines of a log, and go on with its last run, or begin another; None: there is no log.

        Raises LogError naming what it is of if that is something else, or a line that is damaged.
        """
        if rows is None:
            self.start(run)
            return
        if rows[0].get("format") != FORMAT:
            raise StaleLogError(f"{self.path}: not a log of this version ({FORMAT}); search anew without --resume")
        if other := difference(scores_depend_on(rows[0]), scores_depend_on(self.header)):
            raise StaleLogError(f"{self.path}: logs scores of something else ({other}); search anew without --resume")
        largest, last = self.header["largest"]["channels"], None
        for place, row in enumerate(rows[1:], 2):
            try:
                if "run" in row:
                    last, self.decided = RunRow.model_validate(row).run, set()
                elif "scored" in row:
                    self._learn(ScoringRow.model_validate(row), largest)
                elif "measured" in row:
                    timed = MeasuredRow.model_validate(row)
                    self.measured[timed.table, tuple(timed.measured)] = timed.ms
                elif "trial" in row:
                    tried = TrialRow.model_validate(row)
                    self.tried[tried.of, tuple(tried.trial)] = self._score(tried.loss, row.get(self.metric.name))
                elif "step" in row or "answer" in row:
                    self._score(DecisionRow.model_validate(row).loss, row.get(self.metric.name))
                    self.decided.add(_without_seconds(row))
                else:
                    raise ValueError("neither a run, a scoring, a step, an answer, a trial nor a measurement")
            except ValidationError as error:
                raise _damaged(self.path, place, explain(error, BaseModel)) from None
            except ValueError as error:
                raise _damaged(self.path, place, str(error)) from None
        if self.writing and not self.path.read_bytes().endswith(b"\n"):  # drop a line that a kill cut short
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        self.continues = last == run
        if not self.continues:
            self.decided = set()
            self.add({"run": run})

    def _learn(self, row: ScoringRow, largest: Channels) -> None:
        """Take over a scoring. Raises ValueError for channels that the supernet does not hold."""
        scores, channels = {}, dict(zip(largest, row.at, strict=True))
        for changes, loss, value in row.scored:
            changed = Candidate.of(changes)
            if any(count > largest.get(unit, 0) for unit, count in changed.applied(channels).items()):
                raise ValueError("the supernet does not hold these channels")
            scores[key(channels, changed, row.draw)] = self._score(loss, value)
        self._keep(scores, row.seconds, row.multiply_adds)

    def _score(self, loss: float, value: object) -> Score:
        """Return a score. Raises ValueError for one that no network has."""
        if type(value) not in (int, float):
            raise ValueError(f"{self.metric.name} is no number")
        score = Score(loss, value, self.metric)  # type: ignore[arg-type]
        if not score.possible:
            raise ValueError(f"no network has a loss of {loss:g} and {self.metric.title} of {value:g}")
        return score

    def _keep(self, scores: dict[Key, Score], seconds: float, multiply_adds: int) -> None:
        """Remember a scoring and what it took."""
        self.scored.update(scores)
        self.took.append((frozenset(scores), seconds, multiply_adds))

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
        scored = [[dict(c.changes), score.loss, score.value] for c, score in scores.items()]
        row = {"draw": draw, "at": list(channels.values()), "scored": scored}
        self.add({**row, "multiply_adds": multiply_adds, "seconds": round(seconds, 4)})
        self._keep({key(channels, c, draw): score for c, score in scores.items()}, seconds, multiply_adds)

    def add_trial(self, of: str, counts: tuple[int, ...], score: Score) -> None:
        """Log the score of channels after a short training: a resumed search does not train them again."""
        self.tried[of, counts] = score
        self.add({"trial": list(counts), "of": of, **score.figures})

    def add_measured(self, table: str, counts: tuple[int, ...], ms: float) -> None:
        """Log a network's latency, measured as a table's device is: a resumed search does not measure it again."""
        self.measured[table, counts] = ms
        self.add({"measured": list(counts), "table": table, "ms": ms})

    def add_decision(self, row: dict[str, Any]) -> None:
        """Log a step or an answer, unless this run's log has it."""
        if (text := _without_seconds(row)) not in self.decided:
            self.decided.add(text)
            self.add(row)

    def add(self, row: dict[str, Any]) -> None:
        """Add one line and flush it to disk."""
        if not self.writing:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())


def read_log(path: Path) -> list[dict[str, Any]] | None:
    """Return the complete lines of a log, None without one.

    Raises LogError naming a line that is damaged, or why the file cannot be read.
    """
    if not path.exists():
        return None
    rows = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise LogError(f"{path}: cannot be read ({error.strerror}); move it away, and search again") from None
    for place, line in enumerate(lines[:-1], 1):  # the last piece has no newline: empty, or cut short
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError):
            raise _damaged(path, place, "not JSON") from None
        if not isinstance(rows[-1], dict):
            raise _damaged(path, place, "not a JSON object")
    return rows or None


def read_steps(path: Path) -> list[dict[str, Any]]:
    """Return the steps of a log's last run."""
    steps: list[dict[str, Any]] = []
    for row in read_log(path) or ():
        steps = [] if "run" in row else [*steps, row] if "step" in row else steps
    return steps


def key(channels: Channels, candidate: Candidate, draw: int) -> Key:
    """Return what a score is kept by."""
    return draw, tuple(candidate.applied(channels).items())


def scores_depend_on(header: dict[str, Any]) -> dict[str, Any]:
    """Return what of a header decides scores: not versions, nor the machine."""
    return {name: value for name, value in decisive(header).items() if name != "ran_on"}


def _damaged(path: Path, place: int, why: str) -> LogError:
    """Name a line that no search wrote."""
    return LogError(f"{path}: line {place} is damaged ({why}); search again without --resume")


def _without_seconds(row: dict[str, Any]) -> str:
    """Return a decision as text, without what a second run would not repeat."""
    return json.dumps({name: value for name, value in row.items() if name != "seconds"})
