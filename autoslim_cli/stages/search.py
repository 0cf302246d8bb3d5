"""Choose channels for every budget with the recipe's strategy, and write them (AutoSlim, section 3.2)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from autoslim_cli.cost.budget import Budget, short
from autoslim_cli.errors import UsageError
from autoslim_cli.files.atomic import sha256
from autoslim_cli.files.lock import locked
from autoslim_cli.files.names import SCRATCH, SUPERNET, SUPERNET_FILE, WEIGHTS
from autoslim_cli.files.provenance import set_aside
from autoslim_cli.interruption import saying_what_is_kept
from autoslim_cli.progress import duration
from autoslim_cli.searching import STRATEGIES, Answer, Problem, Step
from autoslim_cli.searching.forecast import Forecast, foresee
from autoslim_cli.searching.journal import Journal, answered
from autoslim_cli.searching.log import FORMAT, LOG_FILE, SearchLog, read_log, scores_depend_on
from autoslim_cli.searching.preparation import check_reach, prepared, refuse_settings
from autoslim_cli.searching.scorer import Scorer
from autoslim_cli.searching.telling import decided_by_cost, progress, said, told
from autoslim_cli.stages.answers import file_of, write_answer
from autoslim_cli.stages.project import Project, load_supernet, origin, say_how_it_was_trained
from autoslim_cli.stages.retrain import refuse_retraining
from autoslim_cli.stages.trial import conditions as trial_conditions
from autoslim_cli.stages.trial import trial

DECIDING = (
    *("strategy", "score", "per_flop", "refresh", "among", "stride", "draws", "pace", "fill", "refine"),
    *("rivals", "trial_epochs"),
)
"""The settings that decide what is scored, not what its score is."""


@dataclass
class SearchResult:
    """What a search found, and what it took: `rate` and `forward_rate` are multiply-adds per second of device time."""

    configs: list[dict[str, Any]] = field(default_factory=list)
    strategy: str = ""
    evaluations: int = 0
    multiply_adds: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    forward_rate: float = 0.0


def search(project: Project, budgets: list[Budget], *, resume: bool = False) -> SearchResult:
    """Write `arch-<budget>.json` for every budget, largest first, in one pass.

    Under torchrun the ranks share the candidates of every scoring, with the result of one process of as many threads.
    Raises BudgetError with the reachable range if a budget is out of reach, UsageError if another command searches
    here.
    """
    with locked(project.directory / LOG_FILE, *(file_of(project, budget) for budget in budgets)):
        return _searched(project, budgets, resume=resume)


def refuse_search(project: Project, budgets: list[Budget]) -> None:
    """Raise what a search would be refused for: settings, by UsageError, or a budget out of reach, by BudgetError.

    With rivals it is what their trials would be refused for, too.
    """
    refuse_settings(project.recipe.search, project.task, project.recipe.data.holdout)
    if project.network.switches:
        raise UsageError("supernet.bn: switchable has weights for its switches alone; a search needs bn: shared")
    check_reach(project.network.space, project.costs, budgets)
    if project.recipe.search.rivals:
        if (start := project.recipe.retrain.start) not in (SCRATCH, SUPERNET, WEIGHTS):
            raise UsageError(f"search.rivals: their networks differ, and cannot all start from {start} (retrain.start)")
        refuse_retraining(project)


def _searched(project: Project, budgets: list[Budget], *, resume: bool) -> SearchResult:
    """Search while the log is locked."""
    settings, costs = project.recipe.search, project.costs
    refuse_search(project, budgets)
    # 1. Open the supernet, the log and the holdout. The first rank reads the log for all.
    problem, scorer, log, begun = _opened(project, budgets, resume=resume)
    ranks, journal = scorer.ranks, Journal(costs, scorer, log)
    answers: list[tuple[Answer, int]] = []
    steps: list[Step] = []
    # 2. Let the strategy ask and decide, and log every score and every decision.
    with _threads_of(project, begun), saying_what_is_kept(project.reporter.say, f"{log.path} holds every score so far"):
        strategy = STRATEGIES[settings.strategy]
        forecast = foresee(problem, strategy, scorer.images / scorer.images_of(1))
        forward_rate = _say_plan(project, scorer, forecast, log)
        result = SearchResult(strategy=settings.strategy, forward_rate=forward_rate)

        def write(answer: Answer, found_by: str, number: int) -> None:
            result.configs.append(write_answer(project, answer, found_by, log, number, ranks))
            log.add_decision({"answer": str(answer.budget), **costs(answer.channels), **answer.score.figures})

        with project.reporter.bar("searching", forecast.steps) as bar:

            def look(step: Step) -> None:
                steps.append(step)
                bar(min(journal.number, forecast.steps), partial(progress, costs, step, budgets[-1]))
                project.reporter.detail(partial(told, costs, step, journal.number))

            for answer in answered(strategy, problem, journal, look):
                if settings.rivals:
                    answers.append((answer, journal.number))
                else:
                    write(answer, settings.strategy, journal.number)
        if project.recipe.task.is_own and (why := decided_by_cost(problem, steps)):
            project.reporter.say(why)
        # 3. Let rivals compete, if there are any: a short training decides.
        rivals = _rivals(problem, journal)
        for answer, number in answers:
            found_by, best = _tried(project, {settings.strategy: answer, **rivals[answer.budget]}, log)
            write(best, found_by, number)
    ranks.wait("the end of a search")
    # 4. Say what it took, before a kill or after.
    result.evaluations = len(journal.asked)
    result.seconds, result.multiply_adds = log.cost_of(journal.asked)
    result.rate = result.multiply_adds / max(result.seconds, 1e-9)
    return result


def _opened(
    project: Project, budgets: list[Budget], *, resume: bool
) -> tuple[Problem, Scorer, SearchLog, dict[str, Any]]:
    """Return the problem, what scores candidates, the log that goes on or begins, and the header it began with."""
    recipe, network, settings = project.recipe, project.network, project.recipe.search
    path, task = project.directory / LOG_FILE, project.task
    supernet, ranks = load_supernet(project), project.ranks
    say_how_it_was_trained(project)
    (rows, *_) = ranks.gather(read_log(path) if resume and ranks.first else None, "rows of a log")
    begun = (rows or [{}])[0]
    problem, scorer = prepared(
        *(supernet, network.space, project.costs, budgets, project.images.holdout, task, settings),
        seed=recipe.seed,
        ranks=ranks,
        say=project.reporter.say,
        most=begun.get("most_images"),
    )
    log = SearchLog(path, _header(project, scorer), writing=ranks.first, metric=task.metric)
    run = {"budgets": list(map(str, budgets)), **settings.model_dump(mode="json", include=set(DECIDING))}
    run["min_width"] = recipe.supernet.min_width  # what the space ends at: a supernet of another is taken
    run |= {"latency_table": sha256(project.latency_table)} if project.latency_table else {}
    ranks.agreed({**scores_depend_on(log.header), **run, "--resume": resume}, "conditions of a search")
    if resume:
        log.replay(run, rows)
        return problem, scorer, log, begun
    if ranks.first and path.exists():
        project.reporter.say(f"{path}: the one that was there is kept as {set_aside(path).name}")
    log.start(run)
    return problem, scorer, log, begun


def _rivals(problem: Problem, journal: Journal) -> dict[Budget, dict[str, Answer]]:
    """Return the answers of `search.rivals` to each budget, by strategy."""
    answers: dict[Budget, dict[str, Answer]] = {budget: {} for budget in problem.budgets}
    for name in problem.settings.rivals:
        for event in STRATEGIES[name](problem, journal.ask):
            if isinstance(event, Answer):
                answers[event.budget][name] = event
    return answers


def _tried(project: Project, answers: dict[str, Answer], log: SearchLog) -> tuple[str, Answer]:
    """Return the answer, and its strategy, that is best after a short training; if there is one alone, that."""
    if len(answers) == 1:
        return next(iter(answers.items()))
    of, losses = project.ranks.agreed(trial_conditions(project), "conditions of a trial"), {}
    for name, answer in answers.items():
        counts = tuple(answer.channels.values())
        if (of, counts) not in log.tried:
            log.add_trial(of, counts, trial(project, answer.channels))
        score = log.tried[of, counts]
        losses[name] = score.loss
        project.reporter.say(f"{answer.budget}, {name}: {said(score)} after a trial")
    best = min(losses, key=losses.__getitem__)
    return best, answers[best]


def _header(project: Project, scorer: Scorer) -> dict[str, Any]:
    """Return what scores depend on."""
    made_from = origin(project, "data", "space", "search")
    recipe = made_from["recipe"]
    largest = project.network.space.largest
    recipe["search"] = {name: value for name, value in recipe["search"].items() if name not in DECIDING}
    return {
        "format": FORMAT,
        "versions": made_from["versions"],
        "contents": made_from["contents"],
        "supernet": sha256(project.directory / SUPERNET_FILE),
        "recipe": recipe,
        "metric": project.task.metric.model_dump(mode="json"),
        "holdout": scorer.images,
        "most_images": scorer.most,
        "ran_on": {"device": project.device.type, "threads": torch.get_num_threads()},
        "largest": {"flops": project.costs["flops"](largest), "channels": largest},
    }


@contextmanager
def _threads_of(project: Project, logged: dict[str, Any]) -> Iterator[None]:
    """Score with as many threads as a log began with: on a CPU, BN's statistics are sums over threads."""
    ran_on, here = logged.get("ran_on"), torch.get_num_threads()
    threads = ran_on.get("threads") if isinstance(ran_on, dict) else None
    if project.device.type != "cpu" or not isinstance(threads, int) or not 0 < threads <= 1024 or threads == here:
        yield
        return
    project.reporter.say(f"scoring with {threads} threads, as the log does, not {here}: the last digits depend on it")
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(here)


def _say_plan(project: Project, scorer: Scorer, forecast: Forecast, log: SearchLog) -> float:
    """Say what is searched and how long that takes; return the multiply-adds per second of one timed forward pass."""
    space, flops, say = project.network.space, project.costs["flops"], project.reporter.say
    low, high = flops(space.smallest), flops(space.largest)
    free = sum(len(unit.counts) > 1 for unit in space.units.values())
    say(f"space: {free} units, 10^{space.log10_size:.0f} networks, {short(low)} to {short(high)} FLOPs")
    seconds = scorer.time_a_pass(space.largest)
    images = scorer.images_of(1)
    known = len(log.scored)
    alone = project.recipe.search.strategy in ("random", "uniform")  # whole networks, one after another, on one process
    left = forecast.passes * seconds / (1 if alone else scorer.ranks.size)
    left *= max(0.0, 1 - known / forecast.evaluations) if log.continues else 1
    if known:
        say(f"the log holds {known} scores{'' if log.continues else ', of other budgets or another strategy'}")
    say(
        f"{project.recipe.search.strategy}: about {forecast.steps} steps, {forecast.evaluations} evaluations on "
        f"{images} holdout images{', drawn anew' * scorer.anew}, about {duration(left)} (one pass of the supernet "
        f"took {seconds:.2f} s)"
    )
    return high * images / max(seconds, 1e-9)
