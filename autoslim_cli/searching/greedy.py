"""Slim the supernet greedily, a group of channels at a time, until every budget holds (AutoSlim, section 3.2)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import takewhile

from autoslim_cli.cost.budget import Budget
from autoslim_cli.network.table import Channels
from autoslim_cli.searching.finish import finish
from autoslim_cli.searching.problem import SCREEN, Answer, Ask, Harm, Problem, Step
from autoslim_cli.slimming.candidate import CURRENT, Candidate
from autoslim_cli.training.score import Score

Pick = Callable[[Budget, Channels, list[Candidate], int], tuple[Candidate, Score]]
"""Choose the candidate of a numbered step towards a budget, or several in one, and return its score."""


EXCESS = 2.0
"""How many times the sum of their harms units may do together: more, and a step takes half of them."""

UNKNOWN: Harm = (float("-inf"), 0.0)
"""The harm of a unit that was not scored yet: one that starts to save latency only now."""


def exact(problem: Problem, ask: Ask) -> Iterator[Step | Answer]:
    """Score every candidate at every step, and take the least harmful: the paper's own search."""

    def pick(budget: Budget, channels: Channels, candidates: list[Candidate], number: int) -> tuple[Candidate, Score]:
        scores = ask(channels, [CURRENT, *candidates], number)
        current = scores[CURRENT]
        best = min(candidates, key=lambda c: problem.rank(budget, c, channels, problem.harm(scores[c], current)))
        return best, scores[best]

    return _slim(problem, ask, pick)


def paper(problem: Problem, ask: Ask) -> Iterator[Step | Answer]:
    """Search as AutoSlim's section 3.2 has it: exact, by the score, harm alone, one group a step, no answer filled."""
    return exact(replace(problem, settings=problem.settings.as_published()), ask)


def lazy(problem: Problem, ask: Ask) -> Iterator[Step | Answer]:
    """Score again only the candidates that did least harm when last scored, until the least harmful is a fresh score.

    Harms mostly rise as the network shrinks; where those of a channel never fall, this chooses what `exact` chooses
    (with a `search.stride` of 0). They do fall at times, so every candidate is scored again after `search.refresh`
    groups, on `search.screen` of the images: that tells which are worth a score on all of them. Candidates whose fresh
    scores put them next in turn are taken in the same step, as far as `search.stride` goes.
    """
    settings = problem.settings
    known: dict[str, tuple[Harm, int]] = {}  # by unit: of how many channels, as of the step that last scored it
    groups = settings.refresh  # taken since every candidate was scored

    def harm_of(candidate: Candidate, channels: Channels) -> Harm:
        harm, channels_then = known[candidate.units[0]]
        gone = candidate.lost(channels)
        return harm[0] * gone / channels_then, harm[1] * gone / channels_then

    def first(budget: Budget, candidates: list[Candidate], channels: Channels) -> list[Candidate]:
        # Harms are remembered, what they save is not: that changes with every step. So may the size of a group: a
        # unit's last one is what is left.
        ranks = {c: problem.rank(budget, c, channels, harm_of(c, channels)) for c in candidates if c.units[0] in known}
        return sorted(candidates, key=lambda c: ranks.get(c, UNKNOWN))

    def some(candidates: list[Candidate]) -> int:
        return math.ceil(settings.among * (len(candidates) if settings.among < 1 else 1))

    def pick(budget: Budget, channels: Channels, candidates: list[Candidate], number: int) -> tuple[Candidate, Score]:
        nonlocal groups
        fresh: dict[Candidate, Score] = {}

        def score(due: list[Candidate], draw: int) -> dict[Candidate, Score]:
            scores = ask(channels, [CURRENT, *due], draw)
            known.update({c.units[0]: (problem.harm(scores[c], scores[CURRENT]), c.lost(channels)) for c in due})
            return scores

        # 1. Score every candidate now and then: on some of the images, if those tell where to look.
        if groups >= settings.refresh:
            groups = 0
            if settings.screen < 1:
                score(candidates, SCREEN)
            else:
                fresh = score(candidates, number)
        # 2. Score the least harmful that this step has not scored yet, until the least harmful of all is fresh.
        while (order := first(budget, candidates, channels))[0] not in fresh:
            fresh |= score([c for c in order if c not in fresh][: some(candidates)], number)
        # 3. Take it, and those that follow it in turn.
        taken = _together(problem, budget, channels, list(takewhile(fresh.__contains__, order)))
        while len(taken) > 1:
            after = _joined(taken).applied(channels)
            # 4. Score several at once, in one pass with what the next step looks at first.
            last = problem.fits(budget, after) or groups + len(taken) >= settings.refresh
            ahead = [] if last or settings.draw == "anew" else first(budget, problem.slimming(budget, after), after)
            joint = ask(after, [CURRENT, *ahead[: some(ahead)]], number)[CURRENT]
            harm = problem.harm(joint, problem.score(ask, channels, number))
            if harm[0] <= EXCESS * sum(max(harm_of(c, channels)[0], problem.noises[0]) for c in taken):
                groups += len(taken)
                return _joined(taken), joint
            # 5. Together they harm far more than one by one: take half of them.
            taken = taken[: len(taken) // 2]
        groups += 1
        return taken[0], fresh[taken[0]]

    return _slim(problem, ask, pick)


def _together(problem: Problem, budget: Budget, channels: Channels, order: list[Candidate]) -> list[Candidate]:
    """Return the first candidates: as many as save `search.stride` of the cost, and one at least."""
    before, taken = problem.cost(channels), order[:1]
    for candidate in order[1:]:
        now = problem.cost(_joined(taken).applied(channels))
        then = problem.cost(_joined([*taken, candidate]).applied(channels))
        if budget.holds(now) or budget.shrinkage(before, then) > problem.settings.stride or not budget.saves(now, then):
            break
        taken = [*taken, candidate]
    return taken


def _joined(candidates: list[Candidate]) -> Candidate:
    """Return candidates of different units in one."""
    return Candidate.of(dict(change for candidate in candidates for change in candidate.changes))


def _slim(problem: Problem, ask: Ask, pick: Pick) -> Iterator[Step | Answer]:
    """Take the picked steps down to the last budget; answer each budget as it is met."""
    channels, number = problem.space.largest, 0
    for budget in problem.budgets:
        while not problem.fits(budget, channels):
            number += 1
            # 1. Pick the unit that harms least, or several.
            best, score = pick(budget, channels, problem.slimming(budget, channels), number)
            # 2. Let it lose further groups while that costs next to nothing.
            if problem.settings.pace and len(best.units) == 1:
                best, score = _deepened(problem, ask, budget, channels, best, score, number)
            step = problem.step("slim", channels, best, score)
            yield step
            channels = step.channels
        # 3. The budget holds: spend what it has left, and answer it. The path goes on from where it was.
        yield from finish(problem, ask, budget, channels)


def _deepened(
    problem: Problem, ask: Ask, budget: Budget, channels: Channels, best: Candidate, score: Score, number: int
) -> tuple[Candidate, Score]:
    """Shrink the unit of a candidate further, while the whole step harms no more than `search.pace`."""
    current = problem.score(ask, channels, number)
    while not problem.fits(budget, best.applied(channels)):
        (unit,) = best.units
        count = problem.space.slimmed(best.applied(channels), unit)
        if count is None or problem.harm(score, current)[0] > problem.settings.pace:
            break
        deeper = Candidate.of({unit: count})
        deeper_score = ask(channels, (deeper,), number)[deeper]
        if problem.harm(deeper_score, current)[0] > problem.settings.pace:
            break
        best, score = deeper, deeper_score
    return best, score
