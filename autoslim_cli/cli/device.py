"""Define the commands that measure devices."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from autoslim_cli.cli import completion
from autoslim_cli.cli.options import (
    Json,
    Overrides,
    Recipe,
    Resume,
    Trust,
    Verbose,
    loading,
    open_recipe,
    reporter_of,
    say_next,
)
from autoslim_cli.cli.printing import print_json, print_table
from autoslim_cli.errors import UsageError

if TYPE_CHECKING:
    from autoslim_cli.latency.summary import Summary
    from autoslim_cli.stages.export import Exported
    from autoslim_cli.stages.load_lines import Form

Batch = Annotated[int, typer.Option(min=1, max=2**20, help="Images in one forward.")]

NETWORKS = completion.files(*completion.CHECKPOINTS, *completion.CONFIGS)

MOSTLY_CALLS = 0.8
"""The smallest network's share of the base network's latency above which it is not arithmetic that takes the time."""

MEASURING = ("engine", "dtype", "batch", "channels_last", "threads", "resume")
"""Options that say how this machine is measured."""


def profile(
    ctx: typer.Context,
    overrides: Overrides = None,
    recipe: Recipe = None,
    engine: Annotated[
        Literal["eager", "compile", "onnxruntime"],
        typer.Option(help="What runs the layers; compile: torch.compile, which takes seconds for every point."),
    ] = "eager",
    dtype: Annotated[Literal["fp32", "fp16", "bf16"], typer.Option(help="Arithmetic.")] = "fp32",
    batch: Batch = 1,
    channels_last: Annotated[bool, typer.Option(help="Memory format of convolutions.")] = True,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; PyTorch's own number by default.")] = None,
    suite: Annotated[
        Path | None,
        typer.Option("--import", metavar="DIR", help="Read the times of another device from a suite instead."),
    ] = None,
    resume: Resume = False,
    as_json: Json = False,
    verbose: Verbose = None,
) -> None:
    """Measure this device's latency, layer by layer; write latency-DEVICE.json for `search --latency`."""
    given = [name for name in MEASURING if str(ctx.get_parameter_source(name)).endswith("COMMANDLINE")]
    if suite is not None and given:
        raise UsageError(
            f"--import reads what the device's runner wrote: leave --{given[0].replace('_', '-')} out, which is for "
            "measuring this machine"
        )
    project = open_recipe(recipe, overrides, verbose, shared=False)
    from autoslim_cli.stages.latency_suite import import_suite
    from autoslim_cli.stages.profile import profile as stage

    if threads is not None:
        import torch

        if project.device.type != "cpu":
            raise UsageError(f"--threads is for CPUs, but device is {project.device}: add device=cpu, or leave it out")
        if threads > (processors := os.cpu_count() or threads):
            raise UsageError(f"--threads {threads}: this machine has {processors} processors; name at most as many")
        torch.set_num_threads(threads)
    result = (
        import_suite(project, suite)
        if suite is not None
        else stage(project, engine=engine, dtype=dtype, batch=batch, channels_last=channels_last, resume=resume)
    )
    if as_json:
        print_json(result)
        return
    print_summary(result)
    if result["predicts"] == "badly":
        say_next(project.reporter, project.commands("search", "--flops", "60%,50%,40%"), then="without the table")
        return
    low, base = result["range_ms"][0], result["base_ms"]
    if low > MOSTLY_CALLS * base and suite is None and engine == "eager":
        project.reporter.say(
            "the smallest network takes nearly as long as the base network: calls take the time, not arithmetic; "
            "`--engine onnxruntime` makes fewer"
        )
    share = share_in_reach(low, base)
    search = project.commands("search", "--latency", share, "--latency-table", result["path"])
    say_next(project.reporter, search, then="channels under a latency")


def export(
    ctx: typer.Context,
    overrides: Overrides = None,
    recipe: Recipe = None,
    onnx: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A model-*.safetensors, or an arch-*.json with random weights.",
            autocompletion=NETWORKS,
        ),
    ] = None,
    torch_export: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The same as a program of torch.export: FILE.pt2.", autocompletion=NETWORKS),
    ] = None,
    state_dict: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The same as a dict of tensors: FILE.state.pt.", autocompletion=NETWORKS),
    ] = None,
    fold_bn: Annotated[
        bool, typer.Option("--fold-bn", help="Fold BN into the layers before it; not in a suite, where it always is.")
    ] = False,
    latency_suite: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the recipe's layer shapes go, a small file each.")
    ] = None,
    networks: Annotated[
        int,
        typer.Option(
            min=4, help="Whole networks of a suite: half correct predictions, half check them; a verdict takes 16."
        ),
    ] = 20,
    batch: Annotated[
        int | None, typer.Option(min=1, max=2**20, help="Images in one forward; a network takes any number by default.")
    ] = None,
    trust: Trust = False,
    as_json: Json = False,
    verbose: Verbose = None,
) -> None:
    """Write a network for deployment, checked against PyTorch; or all layer shapes, to be timed on another device.

    What is written needs no autoslim: the lines that load it are printed with it.
    """
    forms = {"onnx": onnx, "torch-export": torch_export, "state-dict": state_dict}
    named = [(form, path) for form, path in forms.items() if path is not None]
    if len(named) + (latency_suite is not None) != 1:
        raise UsageError(
            "name one: --onnx FILE, --torch-export FILE or --state-dict FILE writes a network, --latency-suite DIR the "
            "layers of a search space"
        )
    if named:
        ((form, path),) = named
        if overrides or recipe is not None:
            raise UsageError(f"--{form} takes the network from FILE: leave --recipe and KEY=VALUE out")
        if str(ctx.get_parameter_source("networks")).endswith("COMMANDLINE"):
            raise UsageError(f"--networks is for --latency-suite: leave it out with --{form}")
        reporter = reporter_of(verbose)
        with loading(reporter):
            from autoslim_cli.stages import export as stage

        result = stage.export(path, cast("Form", form), batch=batch, fold_bn=fold_bn, trust=trust)
        if as_json:
            print_json(result)
            return
        print_exported(result)
        reporter.say("next: load it where it is to run; the lines above need no autoslim")
        return
    if fold_bn:
        raise UsageError("--fold-bn is for a network: a suite's layers have their BN folded always")
    if trust:
        raise UsageError("--trust is for a network in a file: a suite is of the recipe's own")
    assert latency_suite is not None
    project = open_recipe(recipe, overrides, verbose, shared=False)
    from autoslim_cli.stages.latency_suite import export_suite

    written = export_suite(project, latency_suite, networks=networks, batch=batch or 1)
    if as_json:
        print_json(written)
        return
    print(f"{written['manifest']}: {written['shapes']} layer shapes, {written['files']} files")
    read = project.commands("profile", "--import", latency_suite)
    say_next(project.reporter, read, then="once the device's runner has timed the files")


def print_exported(result: "Exported") -> None:
    """Print what was written, how close it is, what it costs, what it takes and gives, and how it loads."""
    from autoslim_cli.files.learned import shortened
    from autoslim_cli.stages.preprocessing import in_words

    before, after = result["before"], result["after"]
    shape = "x".join(str(size or "any") for size in result["input"])
    weights = "" if result["trained"] else ", random weights"
    print(
        f"{result['path']}: input {shape}{weights}; largest difference from PyTorch's outputs "
        f"{result['largest_difference']:.1e}, {result['difference']:.1e} of the largest"
    )
    folded = f", {result['folded']} BN layers folded" if result["folded"] else ""
    print(
        f"{after['flops']:,} FLOPs and {after['params']:,} parameters{folded}; the base network has "
        f"{before['flops']:,} and {before['params']:,}"
    )
    print(f"input: {in_words(result['preprocessing'])}")
    if names := result["class_names"]:
        print(f"outputs: {len(names):,} classes, in the order {shortened(names)}")
    print(f"{result['bytes']:,} bytes, from {result['source_bytes']:,}; it loads without autoslim:")
    for line in result["loads"]:
        print(f"    {line}")


def share_in_reach(low: float, base: float) -> str:
    """Return half of the base network's latency, or where the smallest one takes more, what lies between the two."""
    return "50%" if low < base / 2 else f"{50 * (low + base) / base:.0f}%"


def print_summary(result: "Summary") -> None:
    """Print a table's facts, and how well it predicts."""
    low, high = result["range_ms"]
    rows = [
        ("layer shapes", str(result["shapes"])),
        ("measured points", str(result["points"])),
        ("predicted, smallest to largest", f"{low:.3g} to {high:.3g} ms"),
        ("predicted, base network", f"{result['base_ms']:.3g} ms"),
    ]
    if check := result["check"]:
        rows += [
            (f"median error, {check['networks']} other networks", f"{check['median_error']:.1%}"),
            ("90th percentile", f"{check['p90_error']:.1%}"),
            ("rank correlation", f"{check['rank_correlation']:.3f}"),
        ]
        if check["repeatability"] is not None:
            rows += [("the device's own repeatability", f"{check['repeatability']:.1%}")]
    print_table([result["path"], ""], rows)
    print(result["verdict"])
