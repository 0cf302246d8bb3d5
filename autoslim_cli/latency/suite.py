"""Write a latency suite: layer shapes and whole networks as ONNX files, to be timed on a device that is not here."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Literal

from pydantic import Field

from autoslim_cli.errors import UsageError
from autoslim_cli.files.atomic import write_bytes, write_json
from autoslim_cli.latency.building import build_network, build_piece
from autoslim_cli.latency.grid import LayerShape, channels_at
from autoslim_cli.latency.onnx_file import onnx_bytes
from autoslim_cli.network.reading import Reading
from autoslim_cli.progress import Reporter
from autoslim_cli.recipe.schema import ModelSettings, Positive, Settings
from autoslim_cli.slimming.space import Space

MANIFEST = "manifest.json"

POINTS = 5
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
    id: str = Field(default="", description="What times must repeat: those of another suite are not of these files")
    model: ModelSettings
    network: str | None = Field(default=None, description="Digest of the network that was read")
    tie: tuple[tuple[str, ...], ...] = ()
    batch: Positive = 1
    layers: list[SuiteLayer]
    networks: list[SuiteNetwork]

    @property
    def digest(self) -> str:
        """Return what the id must be: a hash of all that the manifest says."""
        return hashlib.sha256(self.model_copy(update={"id": ""}).model_dump_json().encode()).hexdigest()[:16]


def make_directory(directory: Path) -> None:
    """Make the directory of a suite. Raises UsageError if it cannot be one."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--latency-suite {directory}: {error.strerror}; name another directory") from None


def write_layers(
    directory: Path, shapes: Sequence[LayerShape], reading: Reading, space: Space, batch: int, reporter: Reporter
) -> list[SuiteLayer]:
    """Write every layer shape at every point of a grid, as layers/NUMBER-COUNTS.onnx."""
    layers = []
    with reporter.bar("layer shapes", len(shapes)) as bar:
        for number, shape in enumerate(shapes):
            counts = [_spread_out(axis) for axis in shape.counts]
            files = []
            for point in product(*counts):
                file = f"{'-'.join([f'layers/{number:03}', *map(str, point)])}.onnx"
                built = build_piece(reading, shape.piece, channels_at(shape.piece, point, space), batch)
                write_bytes(directory / file, onnx_bytes(*built, what=f"layer {shape.piece.name}"))
                files.append(file)
            layers.append(SuiteLayer(shape=shape.text, example=shape.piece.name, counts=counts, files=files))
            bar(number + 1, partial("{}, {} points".format, shape.piece.name, len(files)))
    return layers


def write_networks(
    directory: Path,
    count: int,
    draw: Callable[[int], dict[str, int]],
    reading: Reading,
    batch: int,
    reporter: Reporter,
) -> list[SuiteNetwork]:
    """Write some whole networks, as networks/NUMBER.onnx. `draw` gives channels by number."""
    networks = []
    with reporter.bar("networks", count) as bar:
        for number in range(count):
            channels, file = draw(number), f"networks/{number:02}.onnx"
            write_bytes(directory / file, onnx_bytes(*build_network(reading, channels, batch)))
            networks.append(SuiteNetwork(file=file, channels=channels))
            bar(number + 1, partial("{}".format, file))
    return networks


def write_manifest(directory: Path, suite: Suite) -> Path:
    """Write what every file of a suite is, under the suite's id; return the manifest's path."""
    path = directory / MANIFEST
    write_json(path, suite.model_copy(update={"id": suite.digest}).model_dump(mode="json"))
    return path


def _spread_out(counts: Sequence[int]) -> list[int]:
    """Return a few of some counts, evenly from the first to the last."""
    places = {round(number * (len(counts) - 1) / (POINTS - 1)) for number in range(POINTS)}
    return [counts[place] for place in sorted(places)]
