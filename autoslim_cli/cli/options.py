"""Define the options that several commands share, and open the recipe that they name."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoslim_cli.cli import completion
from autoslim_cli.cli.printing import json_alone
from autoslim_cli.errors import UsageError
from autoslim_cli.files.names import relative
from autoslim_cli.launch import launched

if TYPE_CHECKING:
    from autoslim_cli.progress import Reporter
    from autoslim_cli.stages.project import Project

OUTPUT = "Output"
"""What `--help` heads the options with that say what is told, and where."""

Recipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        "-r",
        metavar="NAME|DIR",
        autocompletion=completion.recipes,
        help="A recipe directory, a name in recipes/, or a shipped recipe (copied to recipes/NAME). "
        "Default: that of the file that is named, else the current directory if it holds recipe.yaml, else digits.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Recipe values to override, as train.epochs=2.", show_default=False),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        callback=json_alone,
        help="Print one JSON object on stdout and nothing else.",
        rich_help_panel=OUTPUT,
    ),
]
Verbose = Annotated[
    bool | None,
    typer.Option(
        "--verbose/--quiet",
        "-v/-q",
        help="Tell every step and every look at a training on stderr; or nothing but warnings and errors.",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="scratch|supernet|weights|FILE",
        help="What the network starts from: the supernet's weights, those of model.weights, or a checkpoint of this "
        "very network. Default: retrain.start, which is scratch.",
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Let files call code of their choosing: a factory that the recipe in use does not name. Read it first.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue where a stopped command left off.")]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Train a supernet, or the base network that it starts from, anew though a finished one is there, which is "
        "kept aside, or a stopped training, which is given up.",
    ),
]


def reporter_of(verbose: bool | None) -> "Reporter":
    """Return who tells a person how the work goes, and how much. Of the processes of a torchrun job the first talks."""
    from autoslim_cli.progress import Reporter, Talk

    amounts = {None: Talk.PROGRESS, True: Talk.DETAILS, False: Talk.WARNINGS}
    return Reporter(talk=amounts[verbose] if launched().first else Talk.NOTHING)


def open_recipe(
    recipe: str | Path | None,
    overrides: Iterable[str] | None,
    verbose: bool | None = None,
    *,
    shared: bool = True,
    trust: bool = False,
    on_cpu: bool = False,
) -> "Project":
    """Open a recipe for work.

    A command calls it before it imports its stage: it is PyTorch that takes seconds to load, and a person is told.
    With `trust` a file may call code that the recipe does not name; `on_cpu` is for work that needs no other device.
    Raises UsageError if a torchrun job has several processes and the command is not one that they share.
    """
    launch = launched()
    if launch.size > 1 and not shared:
        raise UsageError("under torchrun this command has no work to share among processes; run it without")
    from autoslim_cli.recipe import catalogue
    from autoslim_cli.recipe.loading import load_recipe

    reporter = reporter_of(verbose)
    given = list(overrides or ())
    settings = [*given, *(["device=cpu"] if on_cpu else [])]
    name, may_copy = None if recipe is None else str(recipe), launch.size == 1
    directory = catalogue.find(name, reporter.say, check=lambda path: load_recipe(path, settings), may_copy=may_copy)
    read = load_recipe(directory, settings)
    with loading(reporter):
        from autoslim_cli.stages.project import open_project
    return open_project(read, directory, reporter, trust=trust, overrides=given)


@contextmanager
def loading(reporter: "Reporter") -> Iterator[None]:
    """Say on a terminal what the wait is for, while the libraries are imported."""
    with reporter.doing("loading PyTorch"):
        yield


def say_next(reporter: "Reporter", command: str, then: str) -> None:
    """Say which command comes next, and what it does."""
    sys.stdout.flush()  # results come first, and so does a disk that is full
    reporter.say(f"next: {command}  # {then}")


def export_option(project: "Project") -> str:
    """Return the option that exports a recipe's network: of a detector, weights."""
    return "--state-dict" if project.recipe.model.trace else "--onnx"


def starting_from(project: "Project", start: str | None) -> "Project":
    """Return the project with what `--from` names; a file is given relative to the current directory."""
    if start is None:
        return project
    if Path(start).is_file():
        start = relative(Path(start).resolve(), project.directory.resolve())  # either may lie behind a link
    retrain = project.recipe.retrain.model_copy(update={"start": start})
    return replace(project, recipe=project.recipe.model_copy(update={"retrain": retrain}))


def recipe_of(path: Path | None) -> Path | None:
    """Return the recipe directory that a file lies in, if there is a file and it lies in one."""
    from autoslim_cli.recipe import catalogue

    return catalogue.recipe_of(path) if path else None
