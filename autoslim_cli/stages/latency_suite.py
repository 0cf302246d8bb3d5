"""Write layer shapes as ONNX files for a device that is not here, and read back the times that its runner wrote."""

import hashlib
import math
import statistics
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import Field, ValidationError

from autoslim_cli.errors import ArtifactError, UsageError
from autoslim_cli.files.atomic import file_name, write_bytes, write_json
from autoslim_cli.files.document import read_json
from autoslim_cli.latency.engines import onnx_bytes
from autoslim_cli.latency.grid import Shape, channels_at, shapes_of
from autoslim_cli.latency.table import Device, LatencyTable, LayerTimes, Measured, check_layer
from autoslim_cli.network.pieces import alone, pieces
from autoslim_cli.network.rebuild import fresh
from autoslim_cli.recipe.errors import explain
from autoslim_cli.recipe.schema import ModelSettings, Positive, Settings
from autoslim_cli.stages.profile import finish, refuse_to_replace, sample
from autoslim_cli.stages.project import Project

Read = TypeVar("Read", bound=Settings)

MANIFEST, TIMES = "manifest.json", "times.json"
LINES = 5
"""Counts along each axis: what a grid that is refined starts with, since nothing can be refined from afar."""


class SuiteLayer(Settings):
    """A layer shape: its grid, and one file for each point, row by row."""

    shape: str
    example: str
    counts: list[list[Positive]]
    files: list[str]


class SuiteNetwork(Settings):
    """A whole network."""

    file: str
    channels: dict[str, int]


class Suite(Settings):
    """Say what every file of a suite is."""

    format: Literal["autoslim.latency-suite/1"] = "autoslim.latency-suite/1"
    id: str = Field(description="What times must repeat: those of another suite are not of these files")
    model: ModelSettings
    tie: tuple[tuple[str, ...], ...] = ()
    batch: Positive = 1
    layers: list[SuiteLayer]
    networks: list[SuiteNetwork]


class SuiteDevice(Settings):
    """Say what the runner ran on."""

    name: str
    kind: str = "device"
    threads: Positive | None = None
    version: str = Field(default="", description="The runner and its version")
    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"


class Times(Settings):
    """Hold what the runner wrote: milliseconds by file; two numbers for a network are two measurements of it."""

    suite: str = Field(description="The id in the manifest of the suite that was run")
    device: SuiteDevice
    ms: dict[str, float | Annotated[list[float], Field(min_length=1, max_length=2)]]


def export_suite(project: Project, directory: Path, *, networks: int, batch: int) -> dict[str, Any]:
    """Write a suite; return its manifest's path and how many files it has.

    Raises UsageError without ONNX, or if the directory cannot be one.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--latency-suite {directory}: {error.strerror}; name another directory") from None
    layers = []
    shapes = shapes_of(pieces(project.network.reading), project.network.space)
    with project.reporter.bar("layer shapes", len(shapes)) as bar:
        for number, shape in enumerate(shapes):
            layers.append(_write_layer(project, shape, directory, f"layers/{number:03}", batch))
            bar(number + 1, partial(str, shape.piece.name))
    whole = []
    for number in range(networks):
        channels = sample(project, number)
        file = f"networks/{number:02}.onnx"
        network = fresh(project.network.reading.module, project.network.reading.table, channels)
        write_bytes(directory / file, onnx_bytes(network, [torch.rand(batch, *project.recipe.model.input)]))
        whole.append(SuiteNetwork(file=file, channels=channels))
    suite = Suite(
        id="",
        model=project.recipe.model.architecture,
        tie=project.recipe.space.tie,
        batch=batch,
        layers=layers,
        networks=whole,
    )
    write_json(directory / MANIFEST, suite.model_copy(update={"id": _identity(suite)}).model_dump(mode="json"))
    return {
        "manifest": str(directory / MANIFEST),
        "shapes": len(layers),
        "files": sum(len(layer.files) for layer in layers) + len(whole),
    }


def _identity(suite: Suite) -> str:
    """Return the id of a suite: a hash of all that its manifest says."""
    return hashlib.sha256(suite.model_copy(update={"id": ""}).model_dump_json().encode()).hexdigest()[:16]


def _write_layer(project: Project, shape: Shape, directory: Path, stem: str, batch: int) -> SuiteLayer:
    """Write one layer shape at every point of a grid."""
    counts = [_some(axis) for axis in shape.counts]
    files = []
    for point in product(*counts):
        file = f"{'-'.join([stem, *map(str, point)])}.onnx"
        piece = alone(
            project.network.reading, shape.piece, channels_at(shape.piece, point, project.network.space), batch
        )
        write_bytes(directory / file, onnx_bytes(*piece))
        files.append(file)
    return SuiteLayer(shape=shape.piece.shape, example=shape.piece.name, counts=counts, files=files)


def _some(counts: Sequence[int]) -> list[int]:
    """Return a few of some counts, evenly from the first to the last."""
    places = {round(number * (len(counts) - 1) / (LINES - 1)) for number in range(LINES)}
    return [counts[place] for place in sorted(places)]


def import_suite(project: Project, directory: Path) -> dict[str, Any]:
    """Write `latency-<device>.json` from the times of a suite; half of its networks correct, the others check.

    Raises ArtifactError naming the file whose time is missing or cannot be one.
    """
    suite = _read(directory / MANIFEST, Suite, "`autoslim export --latency-suite` writes it")
    times = _read(directory / TIMES, Times, "the runner of the device writes it; docs/latency.md says how")
    if suite.id != _identity(suite):
        raise ArtifactError(
            f"{directory / MANIFEST}: changed since it was written; export the suite again and run that"
        )
    if times.suite != suite.id:
        raise ArtifactError(
            f"{directory / TIMES}: times of the suite {times.suite}, but {MANIFEST} is of {suite.id}: run this suite"
        )
    if suite.model != project.recipe.model.architecture:
        raise ArtifactError(
            f"{directory / MANIFEST}: a suite of {suite.model.name} at {list(suite.model.input)}, but the recipe's "
            f"model is {project.recipe.model.name} at {list(project.recipe.model.input)}; name its recipe with --recipe"
        )
    layers = [
        LayerTimes(
            shape=one.shape,
            example=one.example,
            counts=one.counts,
            ms=[statistics.mean(_ms(directory, times, file)) for file in one.files],
        )
        for one in suite.layers
    ]
    for layer in layers:
        check_layer(directory / MANIFEST, layer)
    try:
        checked = [
            project.network.space.check(one.channels, str(directory / MANIFEST), bounded=False)
            for one in suite.networks
        ]
    except UsageError as error:
        raise ArtifactError(str(error)) from None
    runs = [
        Measured(channels=channels, ms=_ms(directory, times, one.file))
        for channels, one in zip(checked, suite.networks, strict=True)
    ]
    device = Device(**times.device.model_dump(), engine="imported", batch=suite.batch)
    table = LatencyTable(
        model=suite.model,
        tie=suite.tie,
        device=device,
        layers=layers,
        fitted=tuple(runs[::2]),
        checked=tuple(runs[1::2]),
    )
    path = project.directory / f"latency-{file_name(device.name)}.json"
    if path.exists():
        refuse_to_replace(path, device)
    return finish(project, path, table)


def _ms(directory: Path, times: Times, file: str) -> tuple[float, ...]:
    """Return the milliseconds of a file, of two measurements if there are two."""
    value = times.ms.get(file)
    if value is None:
        raise ArtifactError(f"{directory / TIMES}: no time for {file}; run it, too ({MANIFEST} lists all files)")
    both = value if isinstance(value, list) else [value]
    for ms in both:
        if not 0 < ms < math.inf:
            raise ArtifactError(f"{directory / TIMES}: {file} cannot take {ms} ms; run it again")
    return tuple(both)


def _read(path: Path, kind: type[Read], origin: str) -> Read:
    """Read one of a suite's files."""
    try:
        return kind.model_validate(read_json(path, "part of a latency suite", origin))
    except ValidationError as error:
        raise ArtifactError(f"{path}: {explain(error, kind)}") from None
