"""Define the commands that cut sub-networks out of a supernet."""

from pathlib import Path
from typing import Annotated

import typer

from autoslim_cli.cli import completion
from autoslim_cli.cli.options import (
    Json,
    Overrides,
    Recipe,
    Resume,
    Verbose,
    open_recipe,
    recipe_of,
    say_next,
)
from autoslim_cli.cli.printing import figures, print_json, print_table
from autoslim_cli.errors import UsageError


def calibrate_bn(
    overrides: Overrides = None,
    recipe: Recipe = None,
    widths: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHS",
            help="Widths, relative to the base network: 0.25,0.5 or start:stop:step as 0.25:1.0:0.25.",
        ),
    ] = None,
    channels: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="CONFIG",
            help="A channel config; may be repeated.",
            autocompletion=completion.files(*completion.CONFIGS),
        ),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Score each with the largest sub-network's BN statistics, too.")
    ] = False,
    resume: Resume = False,
    as_json: Json = False,
    verbose: Verbose = None,
) -> None:
    """Cut sub-networks out of the supernet, each with its own BN statistics: deployable without retraining."""
    configs = channels or []
    if not widths and not configs:
        raise UsageError("name what to cut: --widths 0.25:1.0:0.25, --channels arch-300M.json, or both")
    project = open_recipe(recipe or recipe_of(configs[0] if configs else None), overrides, verbose)
    from autoslim_cli.report.figures import write_spectrum
    from autoslim_cli.stages import calibrate_bn as stage

    wanted, metric = stage.parse_widths(widths) if widths else [], project.task.metric
    rows = stage.calibrate_bn(project, wanted, configs, compare=compare, resume=resume)
    drawn = len(rows) > 2 and project.ranks.first
    spectrum = write_spectrum(project.directory, project.recipe.model.name, rows, metric) if drawn else {}
    if as_json:
        print_json({"subnetworks": rows, **spectrum})
        return
    print_table(
        ["sub-network", "FLOPs", "params", "loss", metric.title, *(["uncalibrated"] if compare else []), "file"],
        (
            (
                row["name"],
                *figures(row, metric),
                *([metric.show(row[f"uncalibrated_{metric.name}"])] if compare else []),
                row["path"],
            )
            for row in rows
        ),
        title="calibrated sub-networks, on the holdout",
        goes=["file", "params", "loss"],
        names=["file"],
    )
    for name, path in spectrum.items():
        print(f"{name}: {path}")
    say_next(
        project.reporter,
        project.commands.on_file("evaluate", rows[0]["path"]),
        then=f"{metric.title} on the test images",
    )


def extract(
    width: Annotated[float, typer.Option(help="One of the recipe's supernet.widths, relative to the base network.")],
    overrides: Overrides = None,
    recipe: Recipe = None,
    as_json: Json = False,
    verbose: Verbose = None,
) -> None:
    """Cut one switch out of a slimmable network with switchable BN, as a plain network."""
    project = open_recipe(recipe, overrides, verbose, shared=False)
    from autoslim_cli.stages.calibrate_bn import extract as stage

    row, metric = stage(project, width), project.task.metric
    if as_json:
        print_json(row)
        return
    print_table(
        ["switch", "FLOPs", "params", "loss", metric.title, "file"],
        [(row["name"], *figures(row, metric), row["path"])],
        goes=["params", "loss"],
        names=["file"],
    )
    say_next(
        project.reporter, project.commands.on_file("evaluate", row["path"]), then=f"{metric.title} on the test images"
    )
