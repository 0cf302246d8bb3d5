"""Define the latency table's file: what a device takes for every layer shape of a search space."""

import math
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, model_validator

from autoslim_cli.errors import ArtifactError, UsageError
from autoslim_cli.files.atomic import write_json
from autoslim_cli.files.document import read_settings
from autoslim_cli.files.names import table_file
from autoslim_cli.files.provenance import set_aside
from autoslim_cli.recipe.commands import Commands
from autoslim_cli.recipe.schema import ModelSettings, Positive, Settings

Engine = Literal["eager", "compile", "onnxruntime", "imported"]

DType = Literal["fp32", "fp16", "bf16"]


class Device(Settings):
    """Say what was measured on, and how: times of another device say nothing about this one."""

    name: str = Field(description="The processor or GPU, as it names itself, or as its owner does")
    kind: str = Field(description="`cpu`, `cuda`, `mps`, or what the owner of an imported table says")
    threads: Positive | None = Field(default=None, description="Threads of a CPU")
    engine: Engine = "eager"
    version: str = Field(default="", description="Version of the engine")
    dtype: DType = "fp32"
    batch: Positive = 1
    channels_last: bool = False

    @property
    def label(self) -> str:
        """Return what files of this device are called by: cpu-2-threads, cuda-fp16-compile."""
        threads = f"{self.threads}-thread{'s' * (self.threads != 1)}" if self.threads else ""
        parts = [self.kind, threads, self.dtype if self.dtype != "fp32" else ""]
        parts += ["nchw" if self.engine in ("eager", "compile") and not self.channels_last else ""]
        parts += [self.engine if self.engine != "eager" else "", f"batch-{self.batch}" if self.batch > 1 else ""]
        return "-".join(part for part in parts if part)

    @property
    def options(self) -> list[str]:
        """Return the options by which `profile` measures it."""
        words = ["--engine", self.engine] if self.engine != "eager" else []
        words += ["--dtype", self.dtype] if self.dtype != "fp32" else []
        words += ["--batch", str(self.batch)] if self.batch > 1 else []
        words += ["--no-channels-last"] if self.engine in ("eager", "compile") and not self.channels_last else []
        return [*words, "--threads", str(self.threads)] if self.threads else words

    def __str__(self) -> str:
        return f"{self.label} of {self.name}"


class LayerTimes(Settings):
    """Hold the milliseconds of one layer shape on a grid of channel counts, row by row: the last axis runs fastest."""

    shape: str = Field(description="What the layer computes, on tensors of which sizes; `a` and `b` are its counts")
    example: str = Field(description="The first layer of the network that has this shape")
    counts: list[list[Positive]] = Field(
        description="The grid: ascending counts along each axis; none if nothing varies"
    )
    ms: list[float]
    spread: list[float] = Field(default_factory=list, description="Quartile distance over median, of the repeats")
    cold_ms: list[float] = Field(
        default_factory=list, description="Added to each time where the layer's weights have left the caches"
    )


Factor = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Correction(Settings):
    """Turn sums over layers into a network's milliseconds: fitted on networks that were run end to end."""

    multiplying: Factor = Field(default=1.0, description="On the sum over convolutions and linear layers")
    other: Factor = Field(default=1.0, description="On the sum over all other layers")
    per_mvalue_ms: FiniteFloat = Field(
        default=0.0,
        description="Added for a million values that layers read and write: layouts that isolated layers change",
    )
    constant_ms: FiniteFloat = 0.0
    cold: Factor = Field(default=0.0, description="On the sum of what cold weights add")
    cached_mweights: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=0.0,
        description="Up to how many million weights a network keeps them in the caches; of twice as many all are cold",
    )
    networks: Annotated[int, Field(ge=0)] = Field(default=0, description="How many networks it was fitted on")

    @model_validator(mode="after")
    def _cold_needs_a_cache(self) -> "Correction":
        if self.cold and not self.cached_mweights:
            raise ValueError("cold needs cached_mweights above zero")
        return self


class Check(Settings):
    """Say how well other networks than the fitted ones are predicted."""

    networks: Positive
    median_error: float
    p90_error: float
    rank_correlation: float
    repeatability: float | None = Field(
        default=None, description="Median difference between two measurements of the same network, if there are two"
    )


class Measured(Settings):
    """Hold one network that was run end to end: one or two medians, of measurements some time apart."""

    channels: dict[str, int]
    ms: Annotated[tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], Field(min_length=1, max_length=2)]

    @property
    def mean(self) -> float:
        """Return its milliseconds."""
        return sum(self.ms) / len(self.ms)


class LatencyTable(Settings):
    """Hold what one device takes for the layers of one search space."""

    format: Literal["autoslim.latency/1"] = "autoslim.latency/1"
    model: ModelSettings
    network: str | None = Field(
        default=None, description="Digest of the network that was read: a name does not say what it stands for"
    )
    tie: tuple[tuple[str, ...], ...] = Field(
        default=(), description="`space.tie` of its recipe: tied units are one axis"
    )
    device: Device
    layers: list[LayerTimes]
    fitted: tuple[Measured, ...] = ()
    checked: tuple[Measured, ...] = ()
    correction: Correction = Correction()
    check: Check | None = None
    complete: bool = False


def table_name(device: Device) -> str:
    """Return the name of a device's table in a recipe's directory."""
    return table_file(device.label)


def read_table(path: Path) -> LatencyTable:
    """Read a latency table. Raises ArtifactError naming the layer and the value if a time cannot be one."""
    origin = f"`{Commands.of_file(path)('profile')}` writes one"
    table = read_settings(path, LatencyTable, "latency table", origin)
    for layer in table.layers:
        check_layer(path, layer)
    return table


def write_table(path: Path, table: LatencyTable) -> None:
    """Write a latency table atomically."""
    write_json(path, table.model_dump(mode="json", exclude_none=True))


def measuring_again(path: Path, table: LatencyTable, commands: Commands | None, *more: str) -> str:
    """Return the command that measures a table's device again, by default on the recipe that its file lies in.

    Of a device that was imported it is the one that writes a suite anew.
    """
    commands = commands or Commands.of_file(path)
    if table.device.engine == "imported":
        return commands("export", "--latency-suite", "suite")
    return commands("profile", *table.device.options, *more)


def refuse_other_model(
    path: Path,
    table: LatencyTable,
    model: ModelSettings,
    network: str | None = None,
    commands: Commands | None = None,
) -> None:
    """Raise ArtifactError if a table is of another network: equal layer shapes are not enough for its correction.

    `network` is the digest of what `model` is now; a table that was made by hand has none. `commands` are those on the
    recipe in use, if there is one.
    """
    again = measuring_again(path, table, commands)
    theirs, ours = table.model.architecture.model_dump(mode="json"), model.architecture.model_dump(mode="json")
    other = [f"model.{key} {theirs[key]}, not {ours[key]}" for key in ours if theirs[key] != ours[key]]
    if other:
        raise ArtifactError(
            f"{path}: the table is of {table.model.name} with {'; '.join(other)}; `{again}` measures this network"
        )
    if network is not None and table.network not in (None, network):
        raise ArtifactError(
            f"{path}: {table.model.name} is another network than when the table was made; `{again}` measures this one"
        )


def refuse_incomplete(path: Path, table: LatencyTable, commands: Commands | None = None) -> None:
    """Raise ArtifactError if a table of `autoslim profile` is not finished: its predictions are not corrected yet."""
    if not table.complete and table.device.engine != "imported":
        on = measuring_again(path, table, commands, "--resume")
        raise ArtifactError(f"{path}: not complete; `{on}` finishes it, on {table.device.name}")


def replacing(path: Path, device: Device, say: Callable[[str], None]) -> None:
    """Give the table that is there another name, and say so: minutes of measuring, or somebody's own, are not lost.

    Raises UsageError if it is one of another device, or of other settings of it.
    """
    if not path.exists():
        return
    with suppress(ArtifactError):
        old = read_table(path).device
        if old.model_copy(update={"version": device.version}) != device:
            raise UsageError(f"{path}: measured on {old}, which is not {device}; move it, and name it to use it")
    say(f"{path}: the one that was there is kept as {set_aside(path).name}")


def check_layer(path: Path, layer: LayerTimes) -> None:
    """Raise ArtifactError if a layer's grid is none, or a time in it cannot be one."""
    where = f"{path}: layer {layer.example} ({layer.shape})"
    for axis in layer.counts:
        if not axis or any(a >= b for a, b in pairwise(axis)):
            raise ArtifactError(f"{where}: counts must ascend, not {axis}")
    points = math.prod(map(len, layer.counts))
    if len(layer.ms) != points or any(len(values) not in (0, points) for values in (layer.spread, layer.cold_ms)):
        raise ArtifactError(f"{where}: {len(layer.ms)} times for {points} points of its grid")
    for ms in layer.ms:
        if not (0 < ms < math.inf):
            raise ArtifactError(f"{where}: a time of {ms} ms cannot be; measure the layer again")
    if not all(0 <= ms < math.inf for ms in layer.cold_ms):
        raise ArtifactError(f"{where}: cold weights cannot add {min(layer.cold_ms)} ms; measure the layer again")
