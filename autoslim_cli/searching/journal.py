"""Answer a strategy's questions, and write down its steps."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from autoslim_cli.cost.costs import Costs
from autoslim_cli.network.table import Channels
from autoslim_cli.searching.log import Key, SearchLog, key
from autoslim_cli.searching.problem import Answer, Ask, Problem, Step
from autoslim_cli.searching.scorer import Scorer
from autoslim_cli.slimming.candidate import Candidate
from autoslim_cli.training.score import Score


class Journal:
    """Answer a strategy's questions from the log or by scoring, and number its steps."""

    def __init__(self, costs: Costs, scorer: Scorer, log: SearchLog) -> None:
        self.costs, self.scorer, self.log = costs, scorer, log
        self.asked: set[Key] = set()
        self.number, self.evaluations, self.seconds = 0, 0, 0.0

    def ask(self, channels: Channels, candidates: Sequence[Candidate], draw: int) -> dict[Candidate, Score]:
        """Return the scores of candidates; what the log holds is not scored again."""
        draw = self.scorer.draw_of(draw)
        keys = {candidate: key(channels, candidate, draw) for candidate in candidates}
        if missing := [candidate for candidate in keys if keys[candidate] not in self.log.scored]:
            started, before = time.monotonic(), self.scorer.evaluator.multiply_adds
            scores = self.scorer.score(channels, missing, draw)
            seconds = time.monotonic() - started
            work = sum(self.scorer.ranks.gather(self.scorer.evaluator.multiply_adds - before, "multiply-adds"))
            self.log.add_scores(channels, scores, draw, seconds=seconds, multiply_adds=work)
            self.seconds += seconds
        self.asked.update(keys.values())
        return {candidate: self.log.scored[keys[candidate]] for candidate in candidates}

    def note(self, step: Step) -> None:
        """Log a step: slimming steps and draws are numbered, what follows at a met budget keeps the last number."""
        self.number += step.kind in ("slim", "draw", "width", "prune")
        row: dict[str, Any] = {"step": self.number, "kind": step.kind}
        row |= {"budget": str(step.budget)} if step.budget else {}
        if len(step.changes) == 1:
            unit, before, after = step.changes[0]
            row |= {"unit": unit, "before": before, "after": after}
        elif step.changes:
            row["changes"] = [list(change) for change in step.changes]
        else:
            row["channels"] = step.channels
        row |= {**self.costs(step.channels), **step.score.figures}
        row |= {"evaluations": len(self.asked) - self.evaluations, "seconds": round(self.seconds, 4)}
        self.evaluations, self.seconds = len(self.asked), 0.0
        self.log.add_decision(row)


def answered(
    strategy: Callable[[Problem, Ask], Iterator[Step | Answer]],
    problem: Problem,
    journal: Journal,
    told: Callable[[Step], None],
) -> Iterator[Answer]:
    """Yield the answers of a strategy; its steps are noted, and told."""
    for event in strategy(problem, journal.ask):
        if isinstance(event, Answer):
            yield event
        else:
            journal.note(event)
            told(event)
