"""Choose channels without slimming: at random, or by one width. What a search must beat."""

import hashlib
from collections.abc import Iterator
from functools import partial
from random import Random

from autoslim_cli.cost.budget import Budget
from autoslim_cli.cost.closed_form import filled_evenly, widest_uniform
from autoslim_cli.errors import BudgetError
from autoslim_cli.searching.finish import finish
from autoslim_cli.searching.problem import Answer, Ask, Problem, Step


def random(problem: Problem, ask: Ask) -> Iterator[Step | Answer]:
    """Draw `search.draws` channels that just fit each budget, and keep the best."""
    for budget in problem.budgets:
        steps = []
        for number in range(problem.settings.draws):
            channels = draw(problem, budget, number)
            steps.append(Step("draw", (), channels, problem.score(ask, channels)))
            yield steps[-1]
        best = min(steps, key=lambda step: problem.harm(step.score, steps[0].score))
        yield from finish(problem, ask, budget, best.channels)


def uniform(problem: Problem, ask: Ask) -> Iterator[Step | Answer]:
    """Take the largest width within each budget; where that leaves room, some units take a little more."""
    for budget in problem.budgets:
        fit = widest_uniform(problem.space, lambda c: problem.cost(c)["flops"], partial(problem.fits, budget))
        if fit is None:
            raise BudgetError(f"no uniform width holds {budget}")
        channels = fit[1]
        if problem.used(budget, channels) < problem.settings.fill:
            channels = filled_evenly(problem.space, channels, partial(problem.fits, budget))
        yield Step("width", (), channels, problem.score(ask, channels))
        yield from finish(problem, ask, budget, channels)


def draw(problem: Problem, budget: Budget, number: int) -> dict[str, int]:
    """Return random channels that fit a budget, and would not with any more.

    Every unit's count is drawn from its grid alone; then random units lose groups until the budget holds, and random
    units gain what still fits, to the last quantum.
    """
    digest = hashlib.sha256(repr((problem.seed, str(budget), number)).encode()).digest()
    rng = Random(int.from_bytes(digest[:7], "big"))
    channels = problem.space.random(rng)
    while not problem.fits(budget, channels):
        channels = rng.choice(problem.slimmer(channels)).applied(channels)
    while candidates := problem.fillers(budget, channels):
        channels = rng.choice(candidates).applied(channels)
    return channels
