"""Run all stages of a recipe, skipping what is there and current."""

from typing import Any

from autoslim_cli.cost.budget import Budget
from autoslim_cli.cost.closed_form import widest_uniform
from autoslim_cli.errors import ArtifactError, BudgetError
from autoslim_cli.files.checkpoint import SUPERNET
from autoslim_cli.stages.calibrate_bn import calibrate_bn
from autoslim_cli.stages.currency import is_current
from autoslim_cli.stages.report import write_report
from autoslim_cli.stages.retrain import retrain, state_path
from autoslim_cli.stages.search import SearchResult, search
from autoslim_cli.stages.train_supernet import SECTIONS, STATE_FILE, train_supernet
from autoslim_cli.stages.workshop import SUPERNET_FILE, Workshop


def run(shop: Workshop, budgets: list[Budget]) -> dict[str, Any]:
    """Train the supernet, search, calibrate, retrain the searched and the uniform networks, and report."""
    say = shop.reporter.say
    # 1. The supernet.
    if is_current(shop.path(SUPERNET_FILE), SUPERNET, shop.made_from(*SECTIONS), shop.space.largest):
        say(f"{shop.path(SUPERNET_FILE)} is there and current")
    else:
        train_supernet(shop, resume=shop.path(STATE_FILE).exists())
    # 2. The search.
    found = _search(shop, budgets)
    # 3. For each budget: what the supernet gives without training, the searched and the uniform network retrained.
    rows = []
    for config in found.configs:
        path = shop.path(config["path"].rsplit("/", 1)[-1])
        channels = shop.read_channels(path, bounded=True)
        (subnet,) = calibrate_bn(shop, [], [path], resume=True)
        name = path.stem.removeprefix("arch-")
        uniform_name, uniform = uniform_channels(shop, config["flops"])
        searched = _retrained(shop, name, channels)
        rows.append({"network": f"searched, {name}", **searched, "top1_without_retraining": subnet["top1"]})
        rows.append({"network": "uniform", **_retrained(shop, uniform_name, uniform)})
    report = write_report(shop, found, rows)
    return {"networks": rows, "search": {"evaluations": found.evaluations, "seconds": found.seconds}, **report}


def uniform_channels(shop: Workshop, limit: int) -> tuple[str, dict[str, int]]:
    """Return the name and the channels of the widest uniform network within `limit` FLOPs."""
    fit = widest_uniform(shop.space, shop.flops, limit)
    if fit is None:
        lowest = shop.flops(shop.space.smallest)
        raise BudgetError(f"no uniform width has {limit} FLOPs or fewer; the smallest has {lowest}")
    return f"uniform-{limit}", fit[1]


def _retrained(shop: Workshop, name: str, channels: dict[str, int]) -> dict[str, Any]:
    """Retrain a network unless that is done, from where a stopped run left it."""
    return retrain(shop, name, channels, resume=state_path(shop, name).exists(), keep=True)


def _search(shop: Workshop, budgets: list[Budget]) -> SearchResult:
    """Continue the search that is there if it is of this supernet and recipe, else start one."""
    try:
        return search(shop, budgets, resume=True)
    except ArtifactError as error:
        shop.reporter.say(f"{error}: doing so")
        return search(shop, budgets)
