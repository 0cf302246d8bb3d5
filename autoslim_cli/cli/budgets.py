"""Define the options that bound a network's cost, and read them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoslim_cli.cli import completion
from autoslim_cli.errors import UsageError

if TYPE_CHECKING:
    from autoslim_cli.cost.budget import Budget
    from autoslim_cli.stages.project import Project

BUDGETS = "Budgets"
"""What `--help` heads the options with that bound a cost."""

Flops = Annotated[
    str | None,
    typer.Option(
        "--flops",
        metavar="BUDGETS",
        help="Multiply-adds: 300M, or several as 300M,200M, or 50% of the base network.",
        rich_help_panel=BUDGETS,
    ),
]
Params = Annotated[
    str | None,
    typer.Option(
        "--params",
        metavar="BUDGETS",
        help="Weights and biases: 2M, or several, or 50%. With --flops, both must hold.",
        rich_help_panel=BUDGETS,
    ),
]
Latency = Annotated[
    str | None,
    typer.Option(
        "--latency",
        metavar="BUDGETS",
        help="Predicted by `autoslim profile`: 12ms, 850us, several, or 50% of the base.",
        rich_help_panel=BUDGETS,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--activation-memory",
        metavar="BUDGETS",
        help="Live activations at batch 1: 4MB, 512KB, or 50%.",
        rich_help_panel=BUDGETS,
    ),
]
Table = Annotated[
    Path | None,
    typer.Option(
        "--latency-table",
        metavar="FILE",
        help="Another device's latency table; by default this machine's.",
        rich_help_panel=BUDGETS,
        autocompletion=completion.files(*completion.TABLES),
    ),
]


def bounds(**named: str | None) -> dict[str, str]:
    """Return the bounds that were named, by measure: one at least."""
    texts = {name: text for name, text in named.items() if text is not None}
    if not texts:
        raise UsageError(
            "name a budget: --flops 300M, --latency 12ms, --params 2M, --activation-memory 4MB, or several"
        )
    return texts


def measuring(project: "Project", texts: dict[str, str], table: Path | None) -> "Project":
    """Return the project with all costs that are bounded."""
    from autoslim_cli.stages.project import with_activation_memory, with_latency

    if table is not None and "latency" not in texts:
        raise UsageError("--latency-table says how latency is predicted: add a budget, as --latency 12ms")
    if "activation_memory" in texts:
        project = with_activation_memory(project)
    return with_latency(project, table) if "latency" in texts else project


def budgets(project: "Project", texts: dict[str, str], table: Path | None) -> "list[Budget]":
    """Read the bounds; percentages are of the base network. A table that is named names what is found by it."""
    from dataclasses import replace

    from autoslim_cli.cost.budget import parse_many
    from autoslim_cli.files.measures import MEASURES, option
    from autoslim_cli.files.names import device_of

    device = device_of(table) if table else ""
    base = project.costs(project.network.base)
    found = [replace(budget, device=device) for budget in parse_many(texts, base)]
    for bound in dict.fromkeys(bound for budget in found for bound in budget.bounds):
        if bound.limit > (whole := base[bound.measure]):
            measure = MEASURES[bound.measure]
            project.reporter.warn(
                f"{option(bound.measure)} {bound.text} is more than the base network's {measure.show(whole)} "
                f"({measure.word}): what is found may be larger than that network"
            )
    return found
