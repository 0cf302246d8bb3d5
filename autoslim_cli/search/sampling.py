"""Choose channels without slimming: at random, or by one width. What a search must beat."""

import hashlib
from collections.abc import Iterator
from functools import partial
from random import Random

from autoslim_cli.cost.budget import Budget
from autoslim_cli.cost.closed_form import widest_uniform
from autoslim_cli.errors import BudgetError
from autoslim_cli.search.finish import finish
from autoslim_cli.search.problem import Answer, Ask, Problem, Step
from autoslim_cli.slimming.candidate import Candidate


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
    """Take the largest width within each budget."""
    for budget in problem.budgets:
        fit = widest_uniform(problem.space, lambda c: problem.cost(c)["flops"], partial(problem.fits, budget))
        if fit is None:
            raise BudgetError(f"no uniform width holds {budget}")
        yield Step("width", (), fit[1], problem.score(ask, fit[1]))
        yield from finish(problem, ask, budget, fit[1])


def draw(problem: Problem, budget: Budget, number: int) -> dict[str, int]:
    """Return random channels that fit a budget, and would not with any group more.

    Every unit's count is drawn from its grid alone; then random units lose groups until the budget holds, and random
    units gain what still fits.
    """
    digest = hashlib.sha256(repr((problem.seed, str(budget), number)).encode()).digest()
    rng = Random(int.from_bytes(digest[:7], "big"))
    channels = problem.space.random(rng)
    while not problem.fits(budget, channels):
        channels = rng.choice(problem.slimmer(channels)).applied(channels)
    while candidates := _fitting(problem, budget, channels):
        channels = rng.choice(candidates).applied(channels)
    return channels


def _fitting(problem: Problem, budget: Budget, channels: dict[str, int]) -> list[Candidate]:
    """Return the units that can take a group more within the budget."""
    return [c for c in problem.larger(channels) if problem.fits(budget, c.applied(channels))]
