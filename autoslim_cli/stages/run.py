"""Run all stages of a recipe, skipping what is there and current."""

from pathlib import Path
from typing import Any

from autoslim_cli.cost.budget import Budget
from autoslim_cli.cost.closed_form import filled_evenly, widest_uniform
from autoslim_cli.cost.configs import read_channels
from autoslim_cli.errors import BudgetError, StaleLogError
from autoslim_cli.files.measures import MEASURES
from autoslim_cli.files.names import config_name, started_name, uniform_name, width_name
from autoslim_cli.network.table import Channels
from autoslim_cli.report.figures import write_report
from autoslim_cli.stages.calibrate_bn import calibrate_bn
from autoslim_cli.stages.project import Project
from autoslim_cli.stages.report import report
from autoslim_cli.stages.retrain import refuse_retraining, retrain
from autoslim_cli.stages.search import SearchResult, refuse_search, search
from autoslim_cli.stages.start import refuse_missing_channels
from autoslim_cli.stages.train_base import as_base, train_base
from autoslim_cli.stages.train_supernet import refuse_supernet, train_supernet


def run(project: Project, budgets: list[Budget], *, retrain_base: bool = False, force: bool = False) -> dict[str, Any]:
    """Train the supernet, search, calibrate, retrain the searched and the uniform networks, and report.

    Where the recipe says how, the base network is trained first, and the supernet starts from it. `retrain_base`: train
    the base network as what is found, which says how much was lost; without either its cost is given.
    `force`: train a base network and a supernet anew though others are there, and give up trainings that were stopped
    with other settings.
    """
    # 1. The base network and the supernet, once it is clear that nothing later is missing or refused.
    refuse_search(project, budgets)
    refuse_retraining(project)
    if project.recipe.base:
        refuse_retraining(as_base(project))
        refuse_supernet(project, force=force)
    if retrain_base:
        refuse_missing_channels(project, project.network.base)
    project.images.check_test()
    started_from = train_base(project, resume=True, force=force) if project.recipe.base else None
    train_supernet(project, resume=True, force=force)
    # 2. The search.
    found = _search(project, budgets)

    def retrained(name: str, channels: dict[str, int], config: Path | None = None) -> dict[str, Any]:
        called = started_name(name, project.recipe.retrain.start)
        return retrain(project, called, channels, config=config, resume=True, force=force)

    # 3. The base network, then for each budget: what the supernet gives without training, the searched and the uniform
    # network retrained.
    base = project.network.base
    trained = retrained(width_name(1), base) if retrain_base else started_from or project.costs(base)
    rows: list[dict[str, Any]] = [{"network": "base", **trained}]
    score = project.task.metric.name
    for config, budget in zip(found.configs, budgets, strict=True):
        path = project.directory / Path(config["path"]).name
        channels = read_channels(path, project.network, project.costs, bounded=True)
        (subnet,) = calibrate_bn(project, [], [path], resume=True)
        searched = retrained(config_name(path), channels, path)
        rows.append(_row("searched", project, budget, searched, channels))
        rows[-1] |= {f"holdout_{score}_without_retraining": subnet[score]}
        uniform = uniform_channels(project, budget)
        at_one_width = retrained(uniform_name(budget.label), uniform)
        rows.append(_row("uniform", project, budget, at_one_width, uniform))
    # 4. What was found, for people.
    page: str | None = None
    written: str | None = None
    if project.ranks.first:
        written = write_report(project.directory, rows, found.evaluations)
        page = report(project, project.latency_table)["page"]
    return {
        "networks": rows,
        "search": {"evaluations": found.evaluations, "seconds": found.seconds},
        "report": written,
        "page": page,
    }


def _row(network: str, project: Project, budget: Budget, trained: dict[str, Any], channels: Channels) -> dict[str, Any]:
    """Return what is said of a network that was trained for a budget."""
    used = budget.used(project.costs(channels))
    return {"network": network, "budget": str(budget), "used": used, **trained}


def uniform_channels(project: Project, budget: Budget) -> dict[str, int]:
    """Return the channels of the widest uniform network within a budget.

    Where one width leaves room, some units take a little more, as a search's answer does (`search.fill`). Raises
    BudgetError if no width holds the budget.
    """
    space, costs = project.network.space, project.costs

    def fits(channels: Channels) -> bool:
        return budget.holds(costs(channels))

    fit = widest_uniform(space, costs["flops"], fits)
    if fit is None:
        lowest = costs(space.smallest)
        smallest = ", ".join(f"{lowest[bound.measure]:g} {MEASURES[bound.measure].word}" for bound in budget.bounds)
        raise BudgetError(f"no uniform width holds {budget}; the smallest has {smallest}")
    channels = fit[1]
    if budget.used(costs(channels)) < project.recipe.search.fills:
        channels = filled_evenly(space, channels, fits)
    return channels


def _search(project: Project, budgets: list[Budget]) -> SearchResult:
    """Continue the search that is there; if it scored something else, search anew, and keep its log."""
    try:
        return search(project, budgets, resume=True)
    except StaleLogError as error:
        project.reporter.say(f"searching anew: {error}")
        return search(project, budgets)
