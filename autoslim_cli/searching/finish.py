"""Spend what a met budget has left, and improve channels at equal cost."""

from collections.abc import Iterator

from autoslim_cli.cost.budget import Budget
from autoslim_cli.network.table import Channels
from autoslim_cli.searching.problem import WHOLE, Answer, Ask, Problem, Step
from autoslim_cli.slimming.candidate import CURRENT, Candidate

TRIED = 8
"""How many of the most promising moves are scored at a time."""

GIVEN = 3
"""How many quanta a unit gives at most so that another may take one."""

FULL = 0.995
"""The share of a budget from which on nothing more is given back."""


def finish(problem: Problem, ask: Ask, budget: Budget, channels: Channels) -> Iterator[Step | Answer]:
    """Fill and refine the channels that met a budget, as the settings say, and yield the answer.

    A move may leave room, which is filled once more.
    """
    filling = (fill,) if problem.settings.fill else ()
    refining = (refine, *filling) if problem.settings.refine else ()
    for improve in (*filling, *refining):
        for step in improve(problem, ask, budget, channels):
            yield step
            channels = step.channels
    yield Answer(budget, dict(channels), problem.score(ask, channels))


def fill(problem: Problem, ask: Ask, budget: Budget, channels: Channels) -> Iterator[Step]:
    """Give channels back until `search.fill` of a budget is used, those first that help most for what they cost.

    A unit takes a group, or as many quanta of one as the budget has room for. Below `search.fill` the best is taken
    whatever its score says: a difference of a few channels is within the noise of a holdout, and a network that is
    trained afterwards is none the worse for them. Above it, only what helps is. Where no unit alone fills the budget,
    one that takes a quantum and one that gives one may. Latency can fall as channels are added: an exchange must use
    more of the budget than was used at any time before, so that filling ends.
    """
    most_used = 0.0
    while (used := problem.used(budget, channels)) < max(FULL, problem.settings.fill):
        most_used = max(most_used, used)
        candidates = problem.fillers(budget, channels)
        short = used < problem.settings.fill
        if not candidates and short:
            candidates = _exchanges(problem, budget, channels, most_used)
        step = _best("fill", problem, ask, budget, channels, candidates, at_any_score=short)
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
    kind: str,
    problem: Problem,
    ask: Ask,
    budget: Budget,
    channels: Channels,
    candidates: list[Candidate],
    *,
    at_any_score: bool = False,
) -> Step | None:
    """Return the step of the candidate that helps most; None if none helps, or must not.

    What fills a budget is judged by what it costs, too. Of moves, which all fit, some use less of it than before.
    """
    scores = ask(channels, [CURRENT, *candidates], WHOLE) if candidates else {}
    harm = {c: problem.harm(scores[c], scores[CURRENT]) for c in candidates}
    helpful = [c for c in candidates if at_any_score or harm[c] < (0.0, 0.0)]
    if not helpful:
        return None
    worth = harm if kind == "move" else {c: problem.worth(budget, c, channels, harm[c]) for c in helpful}
    best = min(helpful, key=worth.__getitem__)
    return problem.step(kind, channels, best, scores[best], budget)


def _exchanges(problem: Problem, budget: Budget, channels: Channels, most_used: float) -> list[Candidate]:
    """Return what uses a budget best of all exchanges, beyond `most_used`: a unit takes a quantum, another gives some.

    It gives `GIVEN` at most.
    """
    found: dict[Candidate, float] = {}
    for taker in problem.space.units:
        more = problem.space.moved(channels, taker, 1)
        for giver in problem.space.units:
            for quanta in range(1, GIVEN + 1):
                less = problem.space.moved(channels, giver, -quanta)
                if more is None or less is None or taker == giver:
                    break
                exchange = Candidate.of({taker: more, giver: less})
                after = problem.used(budget, exchange.applied(channels))
                if after <= 1:
                    found |= {exchange: after} if after > most_used else {}
                    break
    return sorted(found, key=found.__getitem__, reverse=True)[:TRIED]


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
