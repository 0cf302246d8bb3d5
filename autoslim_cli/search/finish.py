"""Spend what a met budget has left, and improve channels at equal cost."""

from collections.abc import Iterator

from autoslim_cli.cost.budget import Budget
from autoslim_cli.network.table import Channels
from autoslim_cli.search.problem import WHOLE, Answer, Ask, Problem, Step
from autoslim_cli.slimming.candidate import CURRENT, Candidate

TRIED = 8
"""How many of the most promising moves are scored before a refinement gives up."""


def finish(problem: Problem, ask: Ask, budget: Budget, channels: Channels) -> Iterator[Step | Answer]:
    """Fill and refine the channels that met a budget, as the settings say, and yield the answer."""
    channels = dict(channels)
    if problem.settings.backfill:
        for step in backfill(problem, ask, budget, channels):
            yield step
            channels = step.channels
    if problem.settings.refine:
        for step in refine(problem, ask, budget, channels):
            yield step
            channels = step.channels
    yield Answer(budget, channels, problem.score(ask, channels))


def backfill(problem: Problem, ask: Ask, budget: Budget, channels: Channels) -> Iterator[Step]:
    """Give groups back, the most helpful first, while the budget has room for one that helps."""
    while True:
        candidates = [c for c in problem.larger(channels) if problem.fits(budget, c.applied(channels))]
        step = _best("fill", problem, ask, budget, channels, candidates)
        if step is None:
            return
        yield step
        channels = step.channels


def refine(problem: Problem, ask: Ask, budget: Budget, channels: Channels) -> Iterator[Step]:
    """Move groups from one unit to another within the budget while the score rises, `search.refine` times at most.

    Harms of single changes add up to a promise for each move; the most promising moves are scored, the best is taken.
    """
    for _ in range(problem.settings.refine):
        # 1. Find the moves that fit, and score every group that they give or take alone.
        pairs = [(gain, loss) for gain in problem.larger(channels) for loss in problem.slimmer(channels)]
        fitting = {m: pair for pair in pairs if (m := _move(problem, budget, channels, *pair)) is not None}
        if not fitting:
            return
        alone = list(dict.fromkeys(candidate for pair in fitting.values() for candidate in pair))
        scores = ask(channels, [CURRENT, *alone], WHOLE)
        harm = {c: problem.harm(scores[c], scores[CURRENT])[0] for c in alone}
        # 2. Score the moves that promise most, and take the best.
        moves = sorted(fitting, key=lambda move: sum(harm[c] for c in fitting[move]))[:TRIED]
        step = _best("move", problem, ask, budget, channels, moves)
        if step is None:
            return
        yield step
        channels = step.channels


def _best(
    kind: str, problem: Problem, ask: Ask, budget: Budget, channels: Channels, candidates: list[Candidate]
) -> Step | None:
    """Return the step of the candidate that helps most, None if none helps."""
    scores = ask(channels, [CURRENT, *candidates], WHOLE) if candidates else {}
    best = min(candidates, key=lambda c: problem.harm(scores[c], scores[CURRENT]), default=None)
    if best is None or problem.harm(scores[best], scores[CURRENT]) >= (0.0, 0.0):
        return None
    return problem.step(kind, channels, best, scores[best], budget)


def _move(problem: Problem, budget: Budget, channels: Channels, gain: Candidate, loss: Candidate) -> Candidate | None:
    """Return a move of a group to one unit, from another by as many groups as the budget needs; None if none fits."""
    (taker,), (giver,) = gain.units, loss.units
    if taker == giver:
        return None
    move = Candidate.of(dict((*gain.changes, *loss.changes)))
    while not problem.fits(budget, move.applied(channels)):
        count = problem.space.slimmed(move.applied(channels), giver)
        if count is None:
            return None
        move = Candidate.of({**dict(gain.changes), giver: count})
    return move
