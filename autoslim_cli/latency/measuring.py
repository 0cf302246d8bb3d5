"""Measure a device's latency table: every layer shape, then whole networks.

The table is written after each of them, so a stopped measurement goes on.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from autoslim_cli.errors import ArtifactError, UsageError
from autoslim_cli.files.provenance import difference
from autoslim_cli.latency.building import build_network, build_piece
from autoslim_cli.latency.engines import load
from autoslim_cli.latency.grid import LayerShape, Timing, refined
from autoslim_cli.latency.local_device import is_local, place_of
from autoslim_cli.latency.table import (
    Device,
    LatencyTable,
    LayerTimes,
    Measured,
    read_table,
    refuse_other_model,
    write_table,
)
from autoslim_cli.latency.timing import ROUNDS, time_cold, time_interleaved
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.table import Channels
from autoslim_cli.progress import Reporter
from autoslim_cli.slimming.space import Space

FITTED, CHECKED = 20, 30
"""Networks run end to end: to correct predictions, and to check them."""


def resumed(path: Path, new: LatencyTable, shapes: Sequence[LayerShape], space: Space) -> LatencyTable:
    """Return a new table with what a file holds of it; whole networks only if the search space is the same.

    Raises ArtifactError if the file is of another network or device.
    """
    old = read_table(path)
    refuse_other_model(path, old, new.model, new.network)
    then, now = ({"space.tie": one.tie, "device": one.device.model_dump()} for one in (old, new))
    if why := difference(then, now):
        raise ArtifactError(f"{path}: a table of other measurements ({why}); profile again without --resume")
    wanted = {shape.text: shape for shape in shapes}
    layers = [layer for layer in old.layers if _covers(layer, wanted.get(layer.shape))]
    new = new.model_copy(update={"layers": layers})
    if len(layers) < len(old.layers):
        return new
    try:
        for network in (*old.fitted, *old.checked):
            space.check(network.channels, str(path), bounded=False)
    except UsageError:
        return new
    return new.model_copy(update={"fitted": old.fitted, "checked": old.checked})


def _covers(layer: LayerTimes, shape: LayerShape | None) -> bool:
    """Tell whether the grid of a layer holds all counts that its shape may have now."""
    if shape is None or len(layer.counts) != len(shape.counts):
        return False
    axes = zip(layer.counts, shape.counts, strict=True)
    return all(measured[0] <= counts[0] and counts[-1] <= measured[-1] for measured, counts in axes)


def measure_shapes(
    path: Path,
    table: LatencyTable,
    shapes: Sequence[LayerShape],
    reading: Reading,
    space: Space,
    place: torch.device,
    reporter: Reporter,
) -> LatencyTable:
    """Time every layer shape that a table lacks, on as fine a grid as it needs."""
    layers = {layer.shape: layer for layer in table.layers}
    with reporter.bar("layer shapes", len(shapes)) as bar:
        for number, shape in enumerate(shapes, 1):
            if shape.text not in layers:
                layers[shape.text] = measure_shape(shape, reading, space, table.device, place)
                table = table.model_copy(update={"layers": list(layers.values())})
                write_table(path, table)
            bar(number, partial("{}, {} points".format, shape.piece.name, len(layers[shape.text].ms)))
    return table


def measure_shape(shape: LayerShape, reading: Reading, space: Space, device: Device, place: torch.device) -> LayerTimes:
    """Time one layer shape on a grid that is as fine as it needs to be."""

    def clock(points: Sequence[Channels]) -> list[Timing]:
        built = [build_piece(reading, shape.piece, channels, device.batch) for channels in points]
        runs = [load(module, inputs, device, place) for module, inputs in built]
        times = time_interleaved(runs, place)
        cold = time_cold(runs, place) if shape.piece.multiplies else [0.0] * len(runs)
        return [Timing(*time, cold_ms) for time, cold_ms in zip(times, cold, strict=True)]

    return refined(shape, space, clock).layer_times(shape.piece)


def measure_networks(
    path: Path,
    table: LatencyTable,
    draw: Callable[[int], dict[str, int]],
    reading: Reading,
    place: torch.device,
    reporter: Reporter,
) -> LatencyTable:
    """Time networks as a whole, twice over: what corrects and checks predictions. `draw` gives channels by number."""
    networks = [*table.fitted, *table.checked]
    count = FITTED + CHECKED
    with reporter.bar("networks", 2 * count) as bar:
        for done in range(2 * count):
            again, number = divmod(done, count)
            if number < len(networks) and len(networks[number].ms) > again:
                continue
            channels = networks[number].channels if again else draw(number)
            ms = time_network(reading, channels, table.device, place)
            earlier = networks[number].ms if again else ()
            networks[number : number + 1] = [Measured(channels=channels, ms=(*earlier, ms))]
            table = table.model_copy(update={"fitted": tuple(networks[:FITTED]), "checked": tuple(networks[FITTED:])})
            write_table(path, table)
            bar(done + 1, partial("{:.3f} ms".format, ms))
    return table


def time_network(
    reading: Reading, channels: Channels, device: Device, place: torch.device, rounds: int = ROUNDS
) -> float:
    """Return the milliseconds of a whole network on this machine: the median of some rounds."""
    if device.engine == "compile":
        # It compiles a class for few sizes, and runs it uncompiled after those.
        torch._dynamo.reset()
    place = place_of(device, place)
    run = load(*build_network(reading, channels, device.batch), device, place)
    ((ms, _),) = time_interleaved([run], place, rounds)
    return ms


def time_found(
    reading: Reading, channels: Channels, device: Device, place: torch.device, reporter: Reporter
) -> float | None:
    """Return the milliseconds of a network that a search found; None, with a word, if a device is not this machine."""
    if not is_local(device, place):
        reporter.say(f"not measured end to end: the latency table is of {device}, which is not this machine")
        return None
    threads = torch.get_num_threads()
    torch.set_num_threads(device.threads or threads)
    try:
        return round(time_network(reading, channels, device, place, 5 * ROUNDS), 4)
    finally:
        torch.set_num_threads(threads)
