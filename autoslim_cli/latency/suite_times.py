"""Read the times of a latency suite that the runner of another device wrote."""

import math
import statistics
from pathlib import Path
from typing import Annotated

from pydantic import Field

from autoslim_cli.errors import ArtifactError, UsageError
from autoslim_cli.files.document import read_settings
from autoslim_cli.files.kinds import what_is
from autoslim_cli.latency.suite import MANIFEST, Suite
from autoslim_cli.latency.table import Device, DType, LatencyTable, LayerTimes, Measured, check_layer
from autoslim_cli.recipe.commands import UNKNOWN, command
from autoslim_cli.recipe.schema import ModelSettings, Positive, Settings
from autoslim_cli.slimming.space import Space

TIMES = "times.json"


class SuiteDevice(Settings):
    """Say what the runner ran on."""

    name: str
    kind: str = "device"
    threads: Positive | None = None
    version: str = Field(default="", description="The runner and its version")
    dtype: DType = "fp32"


class SuiteTimes(Settings):
    """Hold what the runner wrote: milliseconds by file; two numbers for a network are two measurements of it."""

    suite: str = Field(description="The id in the manifest of the suite that was run")
    device: SuiteDevice
    ms: dict[str, float | Annotated[list[float], Field(min_length=1, max_length=2)]]


def table_of_suite(directory: Path, model: ModelSettings, space: Space) -> LatencyTable:
    """Return the latency table of a suite that was run: half of its networks are there to correct it, half to check it.

    `model` is the recipe's. Raises ArtifactError if the suite is of another one or was changed, or naming the file
    whose time is missing or cannot be one.
    """
    suite, times = _read(directory, model)
    manifest = directory / MANIFEST
    layers = [
        LayerTimes(
            shape=layer.shape,
            example=layer.example,
            counts=layer.counts,
            ms=[statistics.mean(_ms(directory, times, file)) for file in layer.files],
        )
        for layer in suite.layers
    ]
    for layer in layers:
        check_layer(manifest, layer)
    try:
        drawn = [space.check(network.channels, str(manifest), bounded=False) for network in suite.networks]
    except UsageError as error:
        raise ArtifactError(str(error)) from None
    networks = [
        Measured(channels=channels, ms=_ms(directory, times, network.file))
        for channels, network in zip(drawn, suite.networks, strict=True)
    ]
    return LatencyTable(
        model=suite.model,
        network=suite.network,
        tie=suite.tie,
        device=Device(**times.device.model_dump(), engine="imported", batch=suite.batch),
        layers=layers,
        fitted=tuple(networks[::2]),
        checked=tuple(networks[1::2]),
    )


def _read(directory: Path, model: ModelSettings) -> tuple[Suite, SuiteTimes]:
    """Return a suite and its times. Raises ArtifactError if they do not belong together, or to the recipe's model."""
    what, manifest = "part of a latency suite", directory / MANIFEST
    if directory.is_file():
        kind = what_is(directory) or "a file"
        raise ArtifactError(f"{directory}: {kind}, and no directory of a latency suite: --import takes one")
    export = command("export", "--latency-suite", directory, "-r", UNKNOWN)
    suite = read_settings(manifest, Suite, what, f"`{export}` writes it")
    origin = "the runner of the device writes it; docs/latency.md says how"
    times = read_settings(directory / TIMES, SuiteTimes, what, origin)
    if suite.id != suite.digest:
        raise ArtifactError(f"{manifest}: changed since it was written; export the suite again and run that")
    if times.suite != suite.id:
        raise ArtifactError(
            f"{directory / TIMES}: times of the suite {times.suite}, but {MANIFEST} is of {suite.id}: run this suite"
        )
    if suite.model != model.architecture:
        raise ArtifactError(
            f"{manifest}: a suite of {suite.model.name} at {list(suite.model.input)}, but the model of the recipe in "
            f"use is {model.name} at {list(model.input)}; import it with the recipe that it was exported with: "
            f"`{command('profile', '--import', directory, '-r', UNKNOWN)}`"
        )
    return suite, times


def _ms(directory: Path, times: SuiteTimes, file: str) -> tuple[float, ...]:
    """Return the milliseconds of a file, of two measurements if there are two."""
    value = times.ms.get(file)
    if value is None:
        raise ArtifactError(f"{directory / TIMES}: no time for {file}; run it, too ({MANIFEST} lists all files)")
    measured = value if isinstance(value, list) else [value]
    for ms in measured:
        if not 0 < ms < math.inf:
            raise ArtifactError(f"{directory / TIMES}: {file} cannot take {ms} ms; run it again")
    return tuple(measured)
