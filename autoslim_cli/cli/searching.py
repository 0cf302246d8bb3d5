"""Define the commands that find channels under budgets."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoslim_cli.cli.budgets import Flops, Latency, Memory, Params, Table, bounds, budgets, measuring
from autoslim_cli.cli.options import (
    Force,
    From,
    Json,
    Overrides,
    Recipe,
    Resume,
    Trust,
    Verbose,
    export_option,
    open_recipe,
    say_next,
    starting_from,
)
from autoslim_cli.cli.printing import figures, print_json, print_table
from autoslim_cli.errors import UsageError
from autoslim_cli.recipe.commands import command

if TYPE_CHECKING:
    from autoslim_cli.files.metric import Metric


def search(
    overrides: Overrides = None,
    flops: Flops = None,
    params: Params = None,
    latency: Latency = None,
    activation_memory: Memory = None,
    latency_table: Table = None,
    recipe: Recipe = None,
    trust: Trust = False,
    resume: Resume = False,
    as_json: Json = False,
    verbose: Verbose = None,
) -> None:
    """Slim the supernet greedily, layer by layer, until each budget holds; write arch-BUDGET.json.

    Under torchrun the processes share the candidates: torchrun --nproc-per-node 2 -m autoslim_cli search ...
    """
    from dataclasses import asdict

    texts = bounds(flops=flops, params=params, activation_memory=activation_memory, latency=latency)
    project = measuring(open_recipe(recipe, overrides, verbose, trust=trust), texts, latency_table)
    from autoslim_cli.stages.search import search as stage

    metric = project.task.metric
    result = asdict(stage(project, budgets(project, texts, latency_table), resume=resume))
    if as_json:
        print_json(result)
        return
    bounded = ("activation_memory", "latency", "measured_latency")
    extra = [name for name in bounded if any(name in row for row in result["configs"])]
    heads = {"activation_memory": "activations", "latency": "predicted", "measured_latency": "measured"}
    print_table(
        ["channel config", "budget", "used", "FLOPs", "params", *(heads[name] for name in extra), "loss", metric.title],
        (_found_row(row, extra, metric) for row in result["configs"]),
        title=f"{result['strategy']}: {result['evaluations']} evaluations in {result['seconds']:.0f} s at "
        f"{result['rate'] / 1e9:.1f} G multiply-adds/s (a forward pass: {result['forward_rate'] / 1e9:.1f}), "
        "scored on the holdout",
        goes=["params", "loss", *map(heads.__getitem__, extra), "budget", "used"],
    )
    first = project.commands.on_file("retrain", result["configs"][0]["path"])
    say_next(project.reporter, first, then="train what was found")


def run(
    overrides: Overrides = None,
    flops: Flops = None,
    params: Params = None,
    latency: Latency = None,
    activation_memory: Memory = None,
    latency_table: Table = None,
    start: From = None,
    retrain_base: Annotated[
        bool, typer.Option("--retrain-base", help="Retrain the base network, too: how much was lost?")
    ] = False,
    force: Force = False,
    recipe: Recipe = None,
    trust: Trust = False,
    as_json: Json = False,
    verbose: Verbose = None,
) -> None:
    """Run all stages of a recipe, skipping what is there and current; set the result beside one width and the base."""
    texts = bounds(flops=flops, params=params, activation_memory=activation_memory, latency=latency)
    project = starting_from(
        measuring(open_recipe(recipe, overrides, verbose, trust=trust), texts, latency_table), start
    )
    from autoslim_cli.stages.run import run as stage

    retraining = project.recipe.retrain
    if retraining.start not in ("scratch", "supernet", "weights"):
        raise UsageError(f"run trains several networks: they cannot all start from {retraining.start}")
    result = stage(project, budgets(project, texts, latency_table), retrain_base=retrain_base, force=force)
    if as_json:
        print_json(result)
        return
    metric, base = project.task.metric, project.recipe.base
    of_base = f"; the base network {base.epochs} from {base.start}" if base and not retrain_base else ""
    print_table(
        ["network", "budget", "used", "FLOPs", "params", "test loss", f"test {metric.title}", "file"],
        (_run_row(row, metric) for row in result["networks"]),
        title=f"{project.recipe.model.name}, {retraining.epochs} epochs from {retraining.start}{of_base}",
        goes=["params", "test loss", "file", "used", "budget"],
        names=["file"],
    )
    if not retrain_base and not base:
        project.reporter.say("how much was lost? `--retrain-base` trains the base network by the same recipe, too")
    for name in ("report", "page"):
        if result[name]:
            print(f"{name}: {result[name]}")
    found = next(row["path"] for row in result["networks"] if row["network"] == "searched")
    say_next(project.reporter, command("export", export_option(project), found), then="for deployment")


def _found_row(row: dict[str, Any], extra: list[str], metric: "Metric") -> tuple[str, ...]:
    """Write what was found, with the costs that were bounded; the search may have gone on where nothing is measured."""
    from autoslim_cli.files.measures import MEASURES

    flops, params, *scores = figures(row, metric)
    costs = (MEASURES[name.removeprefix("measured_")].show(row[name]) if name in row else "" for name in extra)
    return (row["path"], *_spent(row), flops, params, *costs, *scores)


def _spent(row: dict[str, Any]) -> tuple[str, str]:
    """Write a budget and the share of it that is used, of a network that was found for one."""
    return (row["budget"], f"{row['used']:.1%}") if "budget" in row else ("", "")


def _run_row(row: dict[str, Any], metric: "Metric") -> tuple[str, ...]:
    """Write one of a run's networks; the base network may not have been trained."""
    if "loss" not in row:
        return (row["network"], *_spent(row), f"{row['flops']:,}", f"{row['params']:,}", "", "not trained", "")
    return (row["network"], *_spent(row), *figures(row, metric), row["path"])
