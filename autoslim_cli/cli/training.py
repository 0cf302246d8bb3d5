"""Define the commands that train a network and measure it on the test set."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoslim_cli.cli import completion
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
    recipe_of,
    say_next,
    starting_from,
)
from autoslim_cli.cli.printing import figures, print_json, print_table, print_test
from autoslim_cli.errors import UsageError
from autoslim_cli.recipe.commands import command

if TYPE_CHECKING:
    from autoslim_cli.stages.project import Project


def train_base(
    overrides: Overrides = None,
    recipe: Recipe = None,
    trust: Trust = False,
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
    verbose: Verbose = None,
) -> None:
    """Train the base network as the recipe's section base says, for the supernet to start from; run does it first."""
    project = open_recipe(recipe, overrides, verbose, trust=trust)
    from autoslim_cli.stages.train_base import train_base as stage

    result = stage(project, resume=resume, force=force)
    if as_json:
        print_json(result)
        return
    print_test([result], project.task.metric)
    say_next(project.reporter, project.commands("train-supernet"), then="all widths of it in one network")


def train_supernet(
    overrides: Overrides = None,
    recipe: Recipe = None,
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
    verbose: Verbose = None,
) -> None:
    """Train a supernet whose sub-networks all work (sandwich rule, inplace distillation)."""
    project = open_recipe(recipe, overrides, verbose)
    from autoslim_cli.stages.train_supernet import train_supernet as stage

    result, metric = stage(project, resume=resume, force=force), project.task.metric
    if as_json:
        print_json(result)
        return
    rows = [(name, *figures(row, metric)) for name, row in result["widths"].items()]
    print_table(
        ["width", "FLOPs", "params", "loss", metric.title],
        rows,
        title=f"{result['supernet']}, on the holdout",
        goes=["params", "loss"],
    )
    if switches := project.recipe.supernet.widths:
        cut = project.commands("extract", "--width", f"{switches[0]:g}")
        say_next(project.reporter, cut, then="a switch as a plain network")
    else:
        say_next(project.reporter, project.commands("search", "--flops", "50%"), then="channels under a budget")


def retrain(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG]... [KEY=VALUE]...",
            autocompletion=completion.files(*completion.CONFIGS),
            help="A channel config as arch-300M.json, several with --joint; recipe values to override.",
            show_default=False,
        ),
    ] = None,
    recipe: Recipe = None,
    width: Annotated[
        float | None,
        typer.Option(help="Train the uniform network of this width instead: 0.5 has half of the base's channels."),
    ] = None,
    uniform_flops: Annotated[
        str | None,
        typer.Option(
            metavar="BUDGET",
            help="Train the widest uniform network within these FLOPs instead: 300M multiply-adds, or 50%.",
        ),
    ] = None,
    joint: Annotated[
        bool,
        typer.Option(
            "--joint", help="Train several configs as one slimmable network, and split it into model-NAME-joint files."
        ),
    ] = False,
    start: From = None,
    name: Annotated[
        str | None, typer.Option(help="What the file is called: model-NAME.safetensors. By default the config's.")
    ] = None,
    trust: Trust = False,
    resume: Resume = False,
    force: Annotated[
        bool, typer.Option("--force", help="Train anew though a stopped training is there, which is given up.")
    ] = False,
    as_json: Json = False,
    verbose: Verbose = None,
) -> None:
    """Train a network at found channels, from scratch or --from trained weights; measure it on the test set at the end.

    From scratch is what the papers do, and takes hundreds of epochs on ImageNet. Fine-tuning from the supernet, or from
    a trained network, is better where epochs are few.
    """
    values = [one for one in arguments or () if "=" in one and not os.path.exists(one)]  # noqa: PTH110  it may be no path
    paths = [Path(argument) for argument in arguments or () if argument not in values]
    if joint:
        others = {
            "--from": None if start == "scratch" else start,
            "--name": name,
            "--width": width,
            "--uniform-flops": uniform_flops,
        }
        if given := [option for option, value in others.items() if value is not None]:
            raise UsageError(
                "--joint trains the networks of channel configs from scratch, and names files after them: leave out "
                + " and ".join(given)
            )
        project = starting_from(open_recipe(recipe or recipe_of(paths[0] if paths else None), values, verbose), start)
        from autoslim_cli.stages.joint import retrain_jointly

        rows = retrain_jointly(project, paths, resume=resume, force=force)
        if as_json:
            print_json({"networks": rows})
            return
        print_test(rows, project.task.metric)
        say_next(project.reporter, command("export", export_option(project), rows[0]["path"]), then="for deployment")
        return
    if len(paths) + (width is not None) + (uniform_flops is not None) != 1:
        raise UsageError(
            "name one network: a channel config, --width 0.5, or --uniform-flops 30M; --joint takes several"
        )
    path = paths[0] if paths else None
    project = starting_from(open_recipe(recipe or recipe_of(path), values, verbose, trust=trust), start)
    from autoslim_cli.files.names import started_name
    from autoslim_cli.stages.retrain import retrain as stage

    own_name, channels = _network(project, path, width, uniform_flops)
    called = name or started_name(own_name, project.recipe.retrain.start)
    result = stage(project, called, channels, config=path, resume=resume, force=force)
    if as_json:
        print_json(result)
        return
    print_test([result], project.task.metric)
    say_next(project.reporter, command("export", export_option(project), result["path"]), then="for deployment")


def evaluate(
    file: Annotated[
        Path,
        typer.Argument(
            help="A model-*.safetensors or subnet-*.safetensors, or a supernet.",
            autocompletion=completion.files(*completion.CHECKPOINTS),
        ),
    ],
    overrides: Overrides = None,
    recipe: Recipe = None,
    width: Annotated[
        float | None, typer.Option(help="A switch of a supernet with switchable BN, relative to the base network.")
    ] = None,
    trust: Trust = False,
    as_json: Json = False,
    verbose: Verbose = None,
) -> None:
    """Measure a deployable checkpoint on the recipe's test set."""
    project = open_recipe(recipe or recipe_of(file), overrides, verbose, trust=trust)
    from autoslim_cli.stages.evaluate import evaluate as stage

    result = stage(project, file, width)
    if as_json:
        print_json(result)
        return
    print_test([result], project.task.metric)
    if width is None:
        say_next(project.reporter, command("export", export_option(project), file), then="for deployment")
    else:
        cut = project.commands("extract", "--width", f"{width:g}")
        say_next(project.reporter, cut, then="this switch as a plain network")


def _network(
    project: "Project", path: Path | None, width: float | None, uniform_flops: str | None
) -> tuple[str, dict[str, int]]:
    """Return the name and the channels that retrain's arguments ask for."""
    from autoslim_cli.cost.budget import Budget, parse
    from autoslim_cli.cost.configs import read_channels
    from autoslim_cli.files.kinds import CHECKPOINTS, SUPERNET, what_is
    from autoslim_cli.files.making import CONFIG, config_of_network
    from autoslim_cli.files.names import config_name, uniform_name, width_name
    from autoslim_cli.stages.run import uniform_channels

    if path is not None:
        if (kind := what_is(path)) in CHECKPOINTS:
            start = "supernet" if kind == SUPERNET else path
            further = project.commands("retrain", config_of_network(path) or CONFIG, "--from", start)
            raise UsageError(f"{path}: {kind}; retrain takes a channel config, and weights by --from: `{further}`")
        return config_name(path), read_channels(path, project.network, project.costs, bounded=False)
    if width is not None:
        return width_name(width), project.network.space.at_width(width)
    assert uniform_flops is not None
    budget = Budget((parse("flops", uniform_flops, project.costs["flops"](project.network.base)),))
    return uniform_name(budget.label), uniform_channels(project, budget)
