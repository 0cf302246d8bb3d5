"""Measure a device that is not here: `autoslim export --latency-suite` and `autoslim profile --import`."""

from functools import partial
from pathlib import Path
from typing import TypedDict

from autoslim_cli.errors import advice_on_memory
from autoslim_cli.files.names import table_file
from autoslim_cli.latency.correction import corrected
from autoslim_cli.latency.grid import layer_shapes
from autoslim_cli.latency.pieces import pieces
from autoslim_cli.latency.random_networks import random_channels
from autoslim_cli.latency.suite import MANIFEST, Suite, make_directory, write_layers, write_manifest, write_networks
from autoslim_cli.latency.suite_times import table_of_suite
from autoslim_cli.latency.summary import Summary, summary
from autoslim_cli.latency.table import refuse_other_model, replacing, write_table
from autoslim_cli.stages.project import Project


class Written(TypedDict):
    """A suite that was written: its manifest's path, how many layer shapes, and files of all kinds, it has."""

    manifest: str
    shapes: int
    files: int


def export_suite(project: Project, directory: Path, *, networks: int, batch: int) -> Written:
    """Write every layer shape and some random networks as ONNX files, and a manifest that says what they are.

    Raises UsageError without ONNX, or if the directory cannot be one.
    """
    recipe, reading, space = project.recipe, project.network.reading, project.network.space
    make_directory(directory)
    shapes = layer_shapes(pieces(reading), space)
    draw = partial(random_channels, space, recipe.supernet, recipe.seed)
    with advice_on_memory(f"--batch {batch} is too much for this network: lower it, model.input or supernet.width"):
        layers = write_layers(directory, shapes, reading, space, batch, project.reporter)
        whole = write_networks(directory, networks, draw, reading, batch, project.reporter)
    model, tie = recipe.model.architecture, recipe.space.tie
    suite = Suite(model=model, network=project.network.digest, tie=tie, batch=batch, layers=layers, networks=whole)
    files = sum(len(layer.files) for layer in layers) + len(whole)
    return {"manifest": str(write_manifest(directory, suite)), "shapes": len(layers), "files": files}


def import_suite(project: Project, directory: Path) -> Summary:
    """Write `latency-<device>.json` from the times of a suite; half of its networks correct, the others check.

    Raises ArtifactError naming the file whose time is missing or cannot be one.
    """
    space, found = project.network.space, pieces(project.network.reading)
    table = table_of_suite(directory, project.recipe.model, space)
    refuse_other_model(directory / MANIFEST, table, project.recipe.model, project.network.digest, project.commands)
    path = project.directory / table_file(table.device.name)
    device, table = table.device, corrected(table, found, space, str(path))
    replacing(path, device, project.reporter.say)
    write_table(path, table)
    return summary(path, table, found, space)
