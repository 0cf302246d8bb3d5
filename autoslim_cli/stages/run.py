"""Run all stages of a recipe, skipping what is there and current."""

from pathlib import Path
from typing import Any

from autoslim_cli.cost.budget import Budget
from autoslim_cli.cost.closed_form import filled_evenly, widest_uniform
from autoslim_cli.cost.configs import read_channels
from autoslim_cli.errors import BudgetError, StaleLogError
from autoslim_cli.network.table import Channels
from autoslim_cli.report.figures import write_report
from autoslim_cli.stages.calibrate_bn import calibrate_bn
from autoslim_cli.stages.project import Project
from autoslim_cli.stages.report import report
from autoslim_cli.stages.retrain import retrain
from autoslim_cli.stages.search import SearchResult, check_reach, search
from autoslim_cli.stages.start import label
from autoslim_cli.stages.train_supernet import train_supernet


def run(project: Project, budgets: list[Budget]) -> dict[str, Any]:
    """Train the supernet, search, calibrate, retrain the searched and the uniform networks, and report."""
    # 1. The supernet, once it is clear that nothing later is missing.
    check_reach(project.network.space, project.costs, budgets)
    assert len(project.images.test)
    train_supernet(project, resume=True)
    # 2. The search.
    found = _search(project, budgets)
    # 3. For each budget: what the supernet gives without training, the searched and the uniform network retrained.
    rows = []
    for config, budget in zip(found.configs, budgets, strict=True):
        path = project.directory / Path(config["path"]).name
        channels = read_channels(path, project.network, project.costs, bounded=True)
        (subnet,) = calibrate_bn(project, [], [path], resume=True)
        name = path.stem.removeprefix("arch-")
        uniform_name, uniform = uniform_channels(project, config["flops"], budget)
        searched = retrain(project, name + label(project), channels, config=path, resume=True)
        rows.append({"network": "searched", **searched, "holdout_top1_without_retraining": subnet["top1"]})
        rows.append({"network": "uniform", **retrain(project, uniform_name + label(project), uniform, resume=True)})
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


def uniform_channels(project: Project, limit: float, budget: Budget | None = None) -> tuple[str, dict[str, int]]:
    """Return the name and the channels of the widest uniform network within `limit` FLOPs, and a budget.

    Where one width leaves room, some units take a little more, as a search's answer does (`search.fill`).
    """
    flops = project.costs["flops"]

    def fits(channels: Channels) -> bool:
        return flops(channels) <= limit and (budget is None or budget.holds(project.costs(channels)))

    space = project.network.space
    fit = widest_uniform(space, flops, fits)
    if fit is None:
        lowest = flops(space.smallest)
        within = f" and holds {budget}" if budget else ""
        raise BudgetError(f"no uniform width has {limit} FLOPs or fewer{within}; the smallest has {lowest}")
    channels = fit[1]
    if flops(channels) < project.recipe.search.fill * limit:  # as a search's answer is
        channels = filled_evenly(space, channels, fits)
    return f"uniform-{limit:g}" if limit % 1 else f"uniform-{limit:.0f}", channels


def _search(project: Project, budgets: list[Budget]) -> SearchResult:
    """Continue the search that is there; if it scored something else, search anew, and keep its log."""
    try:
        return search(project, budgets, resume=True)
    except StaleLogError as error:
        project.reporter.say(f"searching anew: {error}")
        return search(project, budgets)
