"""Define the options that several commands share, and open the recipe that they name."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoslim_cli.errors import UsageError
from autoslim_cli.launch import launched

if TYPE_CHECKING:
    from autoslim_cli.stages.project import Project

Recipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        "-r",
        metavar="NAME|DIR",
        help="A recipe directory, a name in recipes/, or a shipped recipe (copied to recipes/NAME). "
        "Default: the current directory if it holds recipe.yaml, else digits.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Recipe values to override, as train.epochs=2.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="scratch|supernet|weights|FILE",
        help="What the network starts from: the supernet's weights, those of model.weights, or a checkpoint of this "
        "very network. Default: retrain.start, which is scratch.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue where a stopped command left off.")]


def open_recipe(recipe: str | Path | None, overrides: Iterable[str] | None, *, shared: bool = True) -> "Project":
    """Open a recipe for work. Of the processes of a torchrun job only the first talks.

    Raises UsageError if there are several and the command is not one that they share.
    """
    launch = launched()
    if launch.size > 1 and not shared:
        raise UsageError("under torchrun this command has no work to share among processes; run it without")
    from autoslim_cli.progress import Reporter
    from autoslim_cli.recipe import catalogue
    from autoslim_cli.recipe.loading import load_recipe
    from autoslim_cli.stages.project import open_project

    reporter = Reporter(quiet=not launch.first)
    directory = catalogue.find(None if recipe is None else str(recipe), reporter.say, may_copy=launch.size == 1)
    return open_project(load_recipe(directory, overrides or ()), directory, reporter)


def starting_from(project: "Project", start: str | None) -> "Project":
    """Return the project with what `--from` names; a file is given relative to the current directory."""
    if start is None:
        return project
    if Path(start).is_file():
        start = os.path.relpath(Path(start).resolve(), project.directory.resolve())  # either may lie behind a link
    retrain = project.recipe.retrain.model_copy(update={"start": start})
    return replace(project, recipe=project.recipe.model_copy(update={"retrain": retrain}))


def recipe_of(path: Path | None) -> str | None:
    """Return the recipe directory that a file lies in, if it lies in one (or in its published/)."""
    if path is None:
        return None
    for directory in (path.parent, path.parent.parent):
        if (directory / "recipe.yaml").is_file():
            return str(directory)
    return None
