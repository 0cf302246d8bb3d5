"""Define the commands that describe networks."""

import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoslim_cli.cli import completion
from autoslim_cli.cli.options import (
    Json,
    Overrides,
    Recipe,
    Trust,
    Verbose,
    loading,
    open_recipe,
    reporter_of,
    say_next,
)
from autoslim_cli.cli.printing import print_json, print_markdown, print_table
from autoslim_cli.errors import UsageError
from autoslim_cli.files.kinds import SUPERNET, what_is
from autoslim_cli.recipe.commands import Commands, command

if TYPE_CHECKING:
    from autoslim_cli.files.metric import Metric
    from autoslim_cli.recipe.schema import ModelSettings


LAYERS = 4
"""Layers that a line names of a unit; --json has all."""

FILES = (*completion.CONFIGS, *completion.CHECKPOINTS)

LatencyTable = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Predict latency by a table of `autoslim profile`.",
        autocompletion=completion.files(*completion.TABLES),
    ),
]


def units(overrides: Overrides = None, recipe: Recipe = None, as_json: Json = False, verbose: Verbose = None) -> None:
    """Show the channel units of a recipe's network: what can be slimmed, and what is pinned or capped and why."""
    project = open_recipe(recipe, overrides, verbose, shared=False, on_cpu=True)
    from autoslim_cli.near import listed
    from autoslim_cli.recipe.schema import BASE_FILE
    from autoslim_cli.stages.inspect import layers_in
    from autoslim_cli.stages.inspect import units as stage

    rows = stage(project)
    if as_json:
        print_json({"model": project.recipe.model.model_dump(mode="json"), "units": rows})
        return
    print_table(
        ["unit", "base", "supernet", "min", "step", "layers; pins, caps"],
        (
            (
                r["name"],
                *(str(r[k]) for k in ("base", "supernet", "min", "step")),
                listed(layers_in(r), LAYERS) + "".join(f"; {how}: {r[how]}" for how in ("pinned", "capped") if r[how]),
            )
            for r in rows
        ),
        title=f"{project.recipe.model.name}: channel units, named after the first layer that produces them",
        goes=["step", "min"],
        prose=True,
    )
    if project.recipe.base and not (project.directory / BASE_FILE).exists():
        say_next(project.reporter, project.commands("train-base"), then="what the supernet starts from")
    else:
        say_next(project.reporter, project.commands("train-supernet"), then="what every search needs")


def info(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="A channel config, a checkpoint, a recipe, or a model name.",
            autocompletion=completion.files_and_recipes(*FILES),
        ),
    ],
    shape: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="CxHxW",
            help="Channels, height and width of an image in pixels, as 1x28x28. Default: 3x224x224 for a model name, "
            "else what the file or the recipe says.",
        ),
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes, for a model name; 1000 by default.")] = None,
    arg: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="An argument of the model's factory; may be repeated.")
    ] = None,
    trace: Annotated[
        str, typer.Option(metavar="PART", help="The part that is read of a model name's network, as backbone.")
    ] = "",
    latency_table: LatencyTable = None,
    trust: Trust = False,
    as_json: Json = False,
    verbose: Verbose = None,
) -> None:
    """Show a network's layer table, FLOPs and parameters, its difference from the base network, fvcore's verdict."""
    reporter = reporter_of(verbose)
    with loading(reporter):
        from autoslim_cli.files.learned import shortened
        from autoslim_cli.stages.inspect import info as stage
    size = _shape(shape) if shape else None
    model, directory = _model(what, size or (3, 224, 224), classes, arg or [], trace)
    result = stage(what, model, latency_table, directory, shape=size, trust=trust)
    if as_json:
        print_json(result)
        return
    print_table(
        ["layer", "kind", "in", "out", "base out", "groups", "FLOPs", "params"],
        (
            (
                r["name"],
                r["kind"],
                *(f"{r[k]:,}" for k in ("inputs", "outputs", "base_outputs", "groups", "flops", "params")),
            )
            for r in result["layers"]
            if r["kind"] != "norm"
        ),
        title=result["model"],
        goes=["groups", "base out", "params", "kind"],
        names=["kind"],
    )
    for key in ("flops", "params"):
        count, base = result[key], result["base"][key]
        print(f"{key:7}{count:>15,}   {count / base - 1:+.1%} against the base network's {base:,}")
    verdict = "agrees" if result["agrees"] else f"counts {result['fvcore_flops']:,}"
    print(f"fvcore {verdict}: multiply-adds of convolutions and linear layers, batch 1")
    if around := result.get("flops_around"):
        print(f"around {around:>14,}   FLOPs of what is not slimmed, as detection heads: about, and in no budget")
    if latency := result.get("latency"):
        print(f"latency{latency['predicted_ms']:>15.4g} ms, predicted for {latency['device']}")
    if names := result.get("learned_from", {}).get("class_names"):
        print(f"classes{len(names):>15,}   {shortened(names)}")
    for note in result["notes"]:
        print(f"pinned: {note}")
    if what.endswith(".json"):
        say_next(reporter, command("retrain", what), then="train it")
    elif what_is(Path(what)) == SUPERNET:
        cut = Commands.of_file(Path(what))("calibrate-bn", "--widths", "0.5,1")
        say_next(reporter, cut, then="networks out of it that can be deployed")
    elif what.endswith(".safetensors"):
        say_next(reporter, command("evaluate", what), then="its score on the test images")
    elif directory is not None:
        say_next(reporter, Commands(directory)("units"), then="what can be slimmed")
    else:
        say_next(reporter, command("recipes", "list"), then="recipes to copy, in which model.name names this network")


def compare(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Channel configs and checkpoints: found, uniform, published, of any recipe.",
            autocompletion=completion.files(*FILES),
        ),
    ],
    latency_table: LatencyTable = None,
    trust: Trust = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
    as_json: Json = False,
    verbose: Verbose = None,
) -> None:
    """Set networks side by side: FLOPs, parameters, memory, latency, score, and the channels that differ.

    Costs are recomputed and set against the base network's; the score, as top-1, is what each file records of the
    holdout or of the test set.
    """
    if markdown and as_json:
        raise UsageError("--json and --markdown: name one")
    reporter = reporter_of(verbose)
    with loading(reporter):
        from autoslim_cli.files.metric import Metric
        from autoslim_cli.stages.compare import compare as stage

    result = stage(files, latency_table, trust=trust)
    if as_json:
        print_json(result)
        return

    def show(columns: list[str], rows: Iterable[list[str]], goes: list[str], title: str | None = None) -> None:
        if markdown:
            print_markdown(columns, rows, title=title)
        else:
            print_table(columns, rows, title=title, goes=goes, names=["kind"])

    networks = result["networks"]
    metrics = {name: Metric.model_validate(metric) for name, metric in result["metrics"].items()}
    measured = [
        (where, metric)
        for where in ("holdout", "test")
        for metric in metrics.values()
        if any(where in row.get(metric.name, {}) for row in networks)
    ]
    latency = ["latency"] if latency_table else []
    scores = [f"{where} {metric.title}" for where, metric in measured]
    heads = ["network", "kind", "FLOPs", "params", "activations", *latency, *scores]
    number = itertools.count(1)
    columns = ["base" if row["kind"] == "base" else str(next(number)) for row in networks]
    names = [
        row["name"] if column == "base" else f"{column}  {row['name']}"
        for column, row in zip(columns, networks, strict=True)
    ]
    compared = ([name, *_compared(row, networks, measured)] for name, row in zip(names, networks, strict=True))
    tested = any(where == "test" for where, _ in measured)
    before = [f"{where} {metric.title}" for where, metric in measured if where == "holdout" and tested]
    show(heads, compared, ["activations", "kind", "params", *before, *latency])
    if result["differ"]:
        rows = ([unit, *("" if n is None else str(n) for n in counts)] for unit, counts in result["differ"].items())
        show(["unit", *columns], rows, columns[:0:-1], "Channels that differ")
    if trained := [row["name"] for row in networks if row["kind"] in ("retrained", "subnet")]:
        say_next(reporter, command("export", "--onnx", trained[0]), then="for deployment")
    elif configs := [row["name"] for row in networks if row["kind"] == "config"]:
        say_next(reporter, command("retrain", configs[0]), then="train it")


def _compared(row: dict[str, Any], networks: list[dict[str, Any]], measured: list[tuple[str, "Metric"]]) -> list[str]:
    """Write what a row of a comparison says of its network; costs also as a share of the base network's."""
    from autoslim_cli.files.measures import MEASURES

    base = next(other for other in networks if other["kind"] == "base" and other["model"] == row["model"])

    def share(key: str, text: str) -> str:
        return text if row is base else f"{text} ({row[key] / base[key]:.0%})"

    cells = [row["kind"], *(share(key, f"{row[key]:,}") for key in ("flops", "params"))]
    cells.append(share("activation_memory", MEASURES["activation_memory"].show(row["activation_memory"])))
    if "latency_ms" in row:
        cells.append(share("latency_ms", f"{row['latency_ms']:.4g} ms"))
    scores = [(row.get(metric.name, {}).get(where), metric) for where, metric in measured]
    return [*cells, *("" if value is None else metric.show(value) for value, metric in scores)]


def report(
    overrides: Overrides = None,
    recipe: Recipe = None,
    latency_table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Predict latency by this table; by default by those in the recipe's directory.",
            autocompletion=completion.files(*completion.TABLES),
        ),
    ] = None,
    as_png: Annotated[bool, typer.Option("--png", help="Draw the figures as PNG, too; it needs matplotlib.")] = False,
    as_json: Json = False,
    verbose: Verbose = None,
) -> None:
    """Write report.html: one page, without network or script, of everything in a recipe's directory.

    Channels along the network, the search step by step, accuracy against cost, where FLOPs go, and what every file was
    made from; the figures lie beside it as SVG.
    """
    project = open_recipe(recipe, overrides, verbose, on_cpu=True)
    from autoslim_cli.stages.report import report as stage

    result = stage(project, latency_table, as_png=as_png)
    if as_json:
        print_json(result)
        return
    print(result["page"])
    project.reporter.say(f"next: open {result['page']} in a browser")


def _shape(text: str) -> tuple[int, int, int]:
    """Read the shape of an image."""
    from autoslim_cli.recipe.schema import LONGEST_SIDE

    try:
        channels, height, width = (int(size) for size in text.lower().replace(",", "x").split("x"))
    except ValueError:
        raise UsageError(f"--input: {text!r} is not channels x height x width, for example 1x28x28") from None
    if not all(1 <= size <= LONGEST_SIDE for size in (channels, height, width)):
        raise UsageError(f"--input {text}: channels, height and width are 1 to {LONGEST_SIDE}")
    return channels, height, width


def _model(
    what: str, shape: tuple[int, int, int], classes: int | None, args: list[str], trace: str
) -> "tuple[ModelSettings | None, Path | None]":
    """Return the model settings that a model name or a recipe asks for, and a recipe's directory; none for a file."""
    from pydantic import ValidationError

    from autoslim_cli.recipe import catalogue
    from autoslim_cli.recipe.errors import explain
    from autoslim_cli.recipe.loading import load_recipe
    from autoslim_cli.recipe.overrides import value_of
    from autoslim_cli.recipe.schema import ModelSettings

    is_there = os.path.isfile(what)  # noqa: PTH113  False for what is no path
    is_file = is_there or what.endswith((".json", ".safetensors"))
    is_named = what.startswith(("torchvision/", "timm/", "autoslim/"))
    directory = None if is_file or is_named else catalogue.here(what) or catalogue.shipped().get(what)
    if (directory or is_there) and (args or trace or classes is not None):
        raise UsageError(f"--arg, --trace and --classes are for a model name: {what} says what they are")
    if directory:
        return load_recipe(directory).model, directory
    if is_file or not (is_named or ":" in what):
        return None, None
    classes = 1000 if classes is None else classes
    if classes < 1:
        raise UsageError(f"--classes {classes} must be positive")
    pairs = {}
    for text in args:
        key, separator, value = text.partition("=")
        if not separator:
            raise UsageError(f"--arg: {text!r} is not KEY=VALUE, for example width_mult=0.75")
        pairs[key] = value_of(value, f"--arg {text}")
    try:
        return ModelSettings(name=what, args=pairs, input=shape, classes=classes, trace=trace), None
    except ValidationError as error:
        raise UsageError(f"model.{explain(error, ModelSettings)}") from None
