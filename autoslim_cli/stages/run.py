"""Run all stages of a recipe, skipping what is there and current."""

from pathlib import Path
from typing import Any

from autoslim_cli.cost.budget import Budget
from autoslim_cli.cost.closed_form import widest_uniform
from autoslim_cli.errors import BudgetError, LogError
from autoslim_cli.network.table import Channels
from autoslim_cli.stages.calibrate_bn import calibrate_bn
from autoslim_cli.stages.report import write_report
from autoslim_cli.stages.retrain import retrain
from autoslim_cli.stages.search import SearchResult, check_reach, search
from autoslim_cli.stages.train_supernet import train_supernet
from autoslim_cli.stages.workshop import Workshop


def run(shop: Workshop, budgets: list[Budget]) -> dict[str, Any]:
    """Train the supernet, search, calibrate, retrain the searched and the uniform networks, and report."""
    # 1. The supernet, once it is clear that nothing later is missing.
    check_reach(shop, budgets)
    shop.test_images()
    train_supernet(shop, resume=True)
    # 2. The search.
    found = _search(shop, budgets)
    # 3. For each budget: what the supernet gives without training, the searched and the uniform network retrained.
    rows = []
    for config, budget in zip(found.configs, budgets, strict=True):
        path = shop.path(Path(config["path"]).name)
        channels = shop.read_channels(path, bounded=True)
        (subnet,) = calibrate_bn(shop, [], [path], resume=True)
        name = path.stem.removeprefix("arch-")
        uniform_name, uniform = uniform_channels(shop, config["flops"], budget)
        searched = retrain(shop, name, channels, config=path, resume=True)
        rows.append({"network": "searched", **searched, "holdout_top1_without_retraining": subnet["top1"]})
        rows.append({"network": "uniform", **retrain(shop, uniform_name, uniform, resume=True)})
    report = write_report(shop, found, rows)
    return {"networks": rows, "search": {"evaluations": found.evaluations, "seconds": found.seconds}, **report}


def uniform_channels(shop: Workshop, limit: float, budget: Budget | None = None) -> tuple[str, dict[str, int]]:
    """Return the name and the channels of the widest uniform network within `limit` FLOPs, and a budget."""

    def fits(channels: Channels) -> bool:
        return shop.flops(channels) <= limit and (budget is None or budget.holds(shop.cost(channels)))

    fit = widest_uniform(shop.space, shop.flops, fits)
    if fit is None:
        lowest = shop.flops(shop.space.smallest)
        within = f" and holds {budget}" if budget else ""
        raise BudgetError(f"no uniform width has {limit} FLOPs or fewer{within}; the smallest has {lowest}")
    return f"uniform-{limit:g}" if limit % 1 else f"uniform-{limit:.0f}", fit[1]


def _search(shop: Workshop, budgets: list[Budget]) -> SearchResult:
    """Continue the search that is there if it is of this supernet and recipe, else search anew."""
    try:
        return search(shop, budgets, resume=True)
    except LogError as error:
        shop.reporter.say(f"searching anew: {error}")
        return search(shop, budgets)
