"""Prepare a search: refuse what cannot be searched, and say what is scored, and on how many images at a time."""

from collections.abc import Callable, Sequence

from autoslim_cli.cost.budget import Budget
from autoslim_cli.cost.costs import Costs
from autoslim_cli.data.sets import Images
from autoslim_cli.errors import BudgetError, UsageError
from autoslim_cli.files.measures import MEASURES, option
from autoslim_cli.machine import free_memory
from autoslim_cli.recipe.schema import SearchSettings
from autoslim_cli.searching.problem import Problem
from autoslim_cli.searching.scorer import LEAST_IMAGES, Scorer, most_images
from autoslim_cli.slimming.forks import ForkedEvaluator
from autoslim_cli.slimming.importance import importance
from autoslim_cli.slimming.space import Space
from autoslim_cli.slimming.supernet import Supernet
from autoslim_cli.training.distributed import Ranks
from autoslim_cli.training.task import Task

SMALL_BATCH = 256
"""Images below which BN's batch statistics are a coarse stand-in for those of all images."""


def refuse_settings(settings: SearchSettings, task: Task, holdout: int) -> None:
    """Raise UsageError for settings that do not suit a task, or so many images."""
    if settings.score not in ("loss", task.metric.name):
        raise UsageError(f"search.score: {settings.score!r} is no score of {task.name}: loss, or {task.metric.name}")
    if min(holdout, settings.images or holdout) < LEAST_IMAGES:
        raise UsageError(
            f"search.images: BN takes its statistics from what is scored, and needs {LEAST_IMAGES} images at least"
        )
    if settings.draw == "anew" and not (settings.images and settings.images < holdout):
        raise UsageError(
            f"search.draw: anew draws search.images of the holdout at each step: set search.images below its "
            f"{holdout} images"
        )


def check_reach(space: Space, costs: Costs, budgets: list[Budget]) -> None:
    """Refuse a budget that no channels of the space meet, or that all do."""
    low, high = costs(space.smallest), costs(space.largest)
    for budget in budgets:
        for bound in budget.bounds:
            lowest, highest = low[bound.measure], high[bound.measure]
            kind = MEASURES[bound.measure]
            span = (
                f"this supernet goes from {lowest:.9g} ({kind.show(lowest)}) to {highest:.9g} ({kind.show(highest)}) "
                f"{kind.word}; change the budget, or supernet.width and supernet.min_width"
            )
            asked = f"{option(bound.measure)} {bound.text} ({bound.limit:.9g})"
            if lowest > bound.limit:
                raise BudgetError(f"{asked} is out of reach: {span}")
            if budget.holds(high):
                raise BudgetError(f"{asked} holds without a search: {span}")


def prepared(
    supernet: Supernet,
    space: Space,
    costs: Costs,
    budgets: Sequence[Budget],
    holdout: Images,
    task: Task,
    settings: SearchSettings,
    *,
    seed: int,
    ranks: Ranks,
    say: Callable[[str], None],
    most: object = None,
) -> tuple[Problem, Scorer]:
    """Return what a strategy is given, and what scores candidates for it.

    `most` is what a log says of the images in one forward; what it cannot be counts for nothing.
    """
    evaluator = ForkedEvaluator(supernet)
    weighed: dict[str, list[float]] = {}
    if "magnitude" in (settings.strategy, *settings.rivals):
        found = importance(supernet.body, supernet.reading.table, supernet.full)
        weighed = {unit: values.tolist() for unit, values in found.items()}
    problem = Problem(space, costs, tuple(budgets), settings, seed, task.noise, weighed)
    at_once = _images_at_once(problem, evaluator, holdout, ranks, say, most)
    return problem, Scorer(evaluator, holdout, settings, task=task, seed=seed, ranks=ranks, most=at_once)


def _images_at_once(
    problem: Problem,
    evaluator: ForkedEvaluator,
    holdout: Images,
    ranks: Ranks,
    say: Callable[[str], None],
    before: object,
) -> int:
    """Return the most images of one forward, the same on every rank and every machine: what `search.memory` holds.

    A log's own number is kept: another machine's libraries may take a little more, or less.
    """
    settings = problem.settings
    if isinstance(before, int) and 2 <= before <= settings.batch:
        return before
    largest = problem.space.largest
    here = most_images(evaluator, holdout, settings, largest, problem.slimmer(largest))
    most = min(ranks.gather(here, "images in one forward"))
    scored = len(holdout) if settings.draw == "anew" else settings.images or len(holdout)
    wanted = min(settings.batch, scored, len(holdout))
    if most < wanted:
        coarse = ": coarse, raise search.memory if there is more" if most < SMALL_BATCH else ""
        say(
            f"search.memory={settings.memory:g} GiB hold {most} images at a time, not {wanted}: BN takes its "
            f"statistics from batches{coarse}"
        )
    if settings.memory * 2**30 * min(1, wanted / most) > (free := free_memory(holdout.device, ranks.on_one_gpu)):
        say(f"only {free / 2**30:.1f} GiB are free: if memory runs out, lower search.memory")
    return most
