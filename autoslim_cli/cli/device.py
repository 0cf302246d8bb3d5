"""Define the commands that measure devices."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from autoslim_cli.cli.options import Json, Overrides, Recipe, Resume, open_recipe
from autoslim_cli.cli.printing import print_json, print_table
from autoslim_cli.errors import UsageError

if TYPE_CHECKING:
    from autoslim_cli.latency.summary import Summary

Batch = Annotated[int, typer.Option(min=1, max=2**20, help="Images in one forward.")]

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
) -> None:
    """Measure this device's latency, layer by layer; write latency-DEVICE.json for `search --latency`."""
    from autoslim_cli.stages.profile import profile as stage

    given = [name for name in MEASURING if str(ctx.get_parameter_source(name)).endswith("COMMANDLINE")]
    if suite is not None and given:
        raise UsageError(
            f"--import reads what the device's runner wrote: leave --{given[0].replace('_', '-')} out, which is for "
            "measuring this machine"
        )
    project = open_recipe(recipe, overrides, shared=False)
    if suite is not None:
        from autoslim_cli.stages.latency_suite import import_suite

        imported = import_suite(project, suite)
        print_json(imported) if as_json else print_summary(imported)
        return
    if threads is not None:
        import torch

        if project.device.type != "cpu":
            raise UsageError(f"--threads is for CPUs, but device is {project.device}: add device=cpu, or leave it out")
        if threads > (processors := os.cpu_count() or threads):
            raise UsageError(f"--threads {threads}: this machine has {processors} processors; name at most as many")
        torch.set_num_threads(threads)
    result = stage(project, engine=engine, dtype=dtype, batch=batch, channels_last=channels_last, resume=resume)
    if as_json:
        print_json(result)
        return
    print_summary(result)


def export(
    ctx: typer.Context,
    overrides: Overrides = None,
    recipe: Recipe = None,
    onnx: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A model-*.safetensors, or an arch-*.json with random weights.")
    ] = None,
    latency_suite: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the recipe's layer shapes go, a small file each.")
    ] = None,
    networks: Annotated[
        int, typer.Option(min=4, help="Whole networks of a suite: half correct predictions, half check them.")
    ] = 20,
    batch: Batch = 1,
    as_json: Json = False,
) -> None:
    """Write a network as FILE.onnx, checked against PyTorch; or all layer shapes, to be timed on another device."""
    if (onnx is None) == (latency_suite is None):
        raise UsageError("name one: --onnx FILE writes a network, --latency-suite DIR the layers of a search space")
    if onnx is not None:
        if overrides or recipe is not None:
            raise UsageError("--onnx takes the network from FILE: leave --recipe and KEY=VALUE out")
        if str(ctx.get_parameter_source("networks")).endswith("COMMANDLINE"):
            raise UsageError("--networks is for --latency-suite: leave it out with --onnx")
        from autoslim_cli.stages.export import export_onnx

        result = export_onnx(onnx, batch=batch)
        if as_json:
            print_json(result)
            return
        shape, weights = "x".join(map(str, result["input"])), "" if result["trained"] else ", random weights"
        print(f"{result['path']}: input {shape}{weights}; within {result['difference']:.1e} of PyTorch's outputs")
        return
    assert latency_suite is not None
    from autoslim_cli.stages.latency_suite import export_suite

    written = export_suite(open_recipe(recipe, overrides, shared=False), latency_suite, networks=networks, batch=batch)
    if as_json:
        print_json(written)
        return
    print(f"{written['manifest']}: {written['shapes']} layer shapes, {written['files']} files")


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
