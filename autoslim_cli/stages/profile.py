"""Measure a device: every layer shape of a search space on a grid of counts, and whole networks to correct and check.

The table is written after every layer shape and every network, so a stopped measurement goes on.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from autoslim_cli.errors import ArtifactError, UsageError
from autoslim_cli.files.atomic import sha256
from autoslim_cli.files.channel_config import LatencyFacts
from autoslim_cli.latency.engines import ROUNDS, here, load, time_all, time_cold
from autoslim_cli.latency.grid import Shape, Times, refined, shapes_of
from autoslim_cli.latency.predictor import check, fit, predictor
from autoslim_cli.latency.table import (
    Device,
    LatencyTable,
    LayerTimes,
    Measured,
    read_table,
    refuse_other_model,
    write_table,
)
from autoslim_cli.network.pieces import alone, pieces
from autoslim_cli.network.rebuild import fresh
from autoslim_cli.network.table import Channels
from autoslim_cli.seeds import python_random
from autoslim_cli.stages.project import Project

FITTED, CHECKED = 20, 30
"""Networks run end to end: to correct predictions, and to check them."""

EAGER = ("eager", "fp32", 1)
"""Engine, arithmetic and batch of the tables that a search takes by itself."""


def table_file(device: Device) -> str:
    """Return the name of a device's table in a recipe's directory."""
    return f"latency-{device.label}.json"


def profile(
    project: Project, *, engine: str, dtype: str, batch: int, channels_last: bool, resume: bool
) -> dict[str, Any]:
    """Write `latency-<device>.json`; return its path, and how well it predicts networks that it was not fitted on.

    Raises UsageError if the engine is not here, or the table that is there is of another device; ArtifactError if the
    table to go on with is of something else.
    """
    device = here(project.device, engine, dtype, batch, channels_last)
    path, say = project.directory / table_file(device), project.reporter.say
    shapes = shapes_of(pieces(project.network.reading), project.network.space)
    table = LatencyTable(
        model=project.recipe.model.architecture, tie=project.recipe.space.tie, device=device, layers=[]
    )
    if path.exists():
        if resume:
            table = _to_go_on(project, path, table)
        else:
            refuse_to_replace(path, device)
    wanted = {shape.piece.shape: shape for shape in shapes}
    done = {layer.shape: layer for layer in table.layers if _still_covers(layer, wanted.get(layer.shape))}
    if len(done) < len(table.layers):  # the search space has changed
        table = table.model_copy(update={"fitted": (), "checked": ()})
    say(f"{device}: {len(shapes)} layer shapes, {len(done)} of them measured; {FITTED + CHECKED} networks")
    # 1. Every layer shape, on as fine a grid as it needs.
    with project.reporter.bar("layer shapes", len(shapes)) as bar:
        for number, shape in enumerate(shapes, 1):
            if shape.piece.shape not in done:
                done[shape.piece.shape] = _measured_shape(project, shape, device)
                table = table.model_copy(update={"layers": list(done.values())})
                write_table(path, table)
            bar(number, partial("{}, {} points".format, shape.piece.name, len(done[shape.piece.shape].ms)))
    # 2. Networks as a whole, twice over: to fit what layers cannot show, and to check predictions of others.
    runs = [*table.fitted, *table.checked]
    wanted_runs = FITTED + CHECKED
    with project.reporter.bar("networks", 2 * wanted_runs) as bar:
        for place in range(2 * wanted_runs):
            number, again = place % wanted_runs, place // wanted_runs
            if number < len(runs) and len(runs[number].ms) > again:
                continue
            channels = runs[number].channels if again else sample(project, number)
            ms = time_network(project, channels, device)
            earlier = runs[number].ms if again else ()
            runs[number : number + 1] = [Measured(channels=channels, ms=(*earlier, ms))]
            table = table.model_copy(update={"fitted": tuple(runs[:FITTED]), "checked": tuple(runs[FITTED:])})
            write_table(path, table)
            bar(place + 1, partial("{:.3f} ms".format, ms))
    return finish(project, path, table)


def finish(project: Project, path: Path, table: LatencyTable) -> dict[str, Any]:
    """Correct and check predictions by the networks that were run, and write the table."""
    table = table.model_copy(update={"complete": True})
    space, found = project.network.space, pieces(project.network.reading)
    latency = predictor(table, found, *space.ends, str(path))
    if table.fitted:
        table = table.model_copy(update={"correction": fit(latency, table.fitted)})
        latency = predictor(table, found, *space.ends, str(path))
    if table.checked:
        table = table.model_copy(update={"check": check(latency, table.checked)})
    write_table(path, table)
    base = project.network.reading.table.base
    checked = table.check.model_dump() if table.check else None
    points = sum(len(layer.ms) for layer in table.layers)
    return {
        "path": str(path),
        "device": table.device.model_dump(exclude_none=True),
        "shapes": len(table.layers),
        "points": points,
        "correction": table.correction.model_dump(),
        "check": checked,
        "range_ms": [latency(space.smallest), latency(space.largest)],
        "base_ms": latency(base),
    }


def time_network(project: Project, channels: Channels, device: Device, rounds: int = ROUNDS) -> float:
    """Return the milliseconds of a whole network on this machine."""
    network = fresh(project.network.reading.module, project.network.reading.table, channels)
    images = torch.rand(device.batch, *project.recipe.model.input)
    if device.engine == "compile":
        # It compiles a class for few sizes, and runs it uncompiled after those.
        torch._dynamo.reset()
    place = _place(project, device)
    ((ms, _),) = time_all([load(network, [images], device, place)], place, rounds)
    return ms


def sample(project: Project, number: int) -> dict[str, int]:
    """Return random channels around a random width: all latencies that a search may meet, not those at the middle."""
    rng, settings = python_random(project.recipe.seed, "latency", number), project.recipe.supernet
    width = rng.uniform(settings.min_width, settings.width)
    return project.network.space.random(rng, low=0.6 * width, high=1.4 * width)


def measured_here(project: Project, channels: Channels) -> float | None:
    """Return the milliseconds of a network end to end, if the latency table in use is of this machine."""
    assert project.latency_table is not None
    device = read_table(project.latency_table).device
    if device.engine == "imported" or not is_here(project, device):
        project.reporter.say(f"not measured end to end: the latency table is of {device}, which is not this machine")
        return None
    threads = torch.get_num_threads()
    torch.set_num_threads(device.threads or threads)
    try:
        return round(time_network(project, channels, device, 5 * ROUNDS), 4)
    finally:
        torch.set_num_threads(threads)


def is_here(project: Project, device: Device) -> bool:
    """Tell whether a device is this machine."""
    own = here(_place(project, device), "eager", "fp32", 1, True)
    return (own.name, own.kind) == (device.name, device.kind)


def _place(project: Project, device: Device) -> torch.device:
    """Return where a device's networks run: a search on a GPU may be for this machine's CPU."""
    return torch.device("cpu") if device.kind == "cpu" else project.device


def with_latency(project: Project, table: Path | None) -> Project:
    """Return the workshop with latency among its costs: by a table that is named, or by this machine's own.

    Raises ArtifactError if this machine has none in the recipe's directory, what is there is of another one, or not
    complete; UsageError if the table is of this machine, but its engine is not here.
    """
    path = table or _own_table(project)
    found = read_table(path)
    refuse_other_model(path, found, project.recipe.model)
    refuse_incomplete(path, found)
    if found.device.engine != "imported" and is_here(project, device := found.device):
        here(_place(project, device), device.engine, device.dtype, device.batch, device.channels_last)
    found_pieces = pieces(project.network.reading)
    latency = predictor(found, found_pieces, *project.network.space.ends, str(path))
    return replace(project, costs=project.costs.also("latency", latency), latency_table=path)


def latency_facts(project: Project, channels: Channels, measured_ms: float | None) -> LatencyFacts | None:
    """Return what a channel config says of latency; None if latency is not among the costs."""
    if project.latency_table is None:
        return None
    return LatencyFacts(
        predicted_ms=round(project.costs["latency"](channels), 4),
        measured_ms=measured_ms,
        device=str(read_table(project.latency_table).device),
        table=sha256(project.latency_table),
    )


def refuse_incomplete(path: Path, table: LatencyTable) -> None:
    """Raise ArtifactError if a table of `autoslim profile` is not finished: its predictions are not corrected yet."""
    if not table.complete and table.device.engine != "imported":
        raise ArtifactError(f"{path}: not complete; `autoslim profile --resume` finishes it")


def _own_table(project: Project) -> Path:
    """Return this machine's table: of as many threads as there are now, or the only one of eager PyTorch."""
    own = project.directory / table_file(here(project.device, "eager", "fp32", 1, True))
    paths = sorted(project.directory.glob("latency-*.json"))
    if own in paths:
        device = read_table(own).device
        if not is_here(project, device) or (device.engine, device.dtype, device.batch) != EAGER:
            raise ArtifactError(
                f"{own}: measured on {device}, which is not this machine by eager PyTorch; run `autoslim profile`, or "
                "name the table with --latency-table to search for that device"
            )
        return own
    devices = {path: read_table(path).device for path in paths}
    mine = [path for path, d in devices.items() if is_here(project, d) and (d.engine, d.dtype, d.batch) == EAGER]
    if len(mine) == 1:
        return mine[0]
    hint = f"; --latency-table names another: {', '.join(path.name for path in paths)}" if paths else ""
    raise ArtifactError(f"{own}: no latency table of this machine; `autoslim profile` measures one{hint}")


def _to_go_on(project: Project, path: Path, new: LatencyTable) -> LatencyTable:
    """Return what is measured of a table that is there, if it is of the same network and device."""
    old = read_table(path)
    if (old.model, old.tie, old.device) != (new.model, new.tie, new.device):
        raise ArtifactError(f"{path}: a table of {old.model.name} on {old.device}; profile again without --resume")
    kept = new.model_copy(update={"layers": old.layers})
    try:
        for network in (*old.fitted, *old.checked):
            project.network.space.check(network.channels, str(path), bounded=False)
    except UsageError:  # the search space has changed
        return kept
    return kept.model_copy(update={"fitted": old.fitted, "checked": old.checked})


def refuse_to_replace(path: Path, device: Device) -> None:
    """Raise UsageError if the table that would be replaced is of another device, or of other settings of it."""
    with suppress(ArtifactError):
        old = read_table(path).device
        if old.model_copy(update={"version": device.version}) != device:
            raise UsageError(f"{path}: measured on {old}, which is not {device}; move it, and name it to use it")


def _still_covers(layer: LayerTimes, shape: Shape | None) -> bool:
    """Tell whether the grid of a layer holds all counts that its shape may have now."""
    if shape is None or len(layer.counts) != len(shape.counts):
        return False
    ends = zip(layer.counts, shape.counts, strict=True)
    return all(axis[0] <= counts[0] and counts[-1] <= axis[-1] for axis, counts in ends)


def _measured_shape(project: Project, shape: Shape, device: Device) -> LayerTimes:
    """Measure one layer shape on a grid that is as fine as it needs to be."""
    piece = shape.piece

    def clock(points: Sequence[Channels]) -> list[Times]:
        runs = [
            load(*alone(project.network.reading, piece, channels, device.batch), device, project.device)
            for channels in points
        ]
        times = time_all(runs, project.device)
        cold = time_cold(runs, project.device) if piece.multiplies else [0.0] * len(runs)
        return [Times(*time, extra) for time, extra in zip(times, cold, strict=True)]

    grid = refined(shape, project.network.space, clock)
    return grid.layer(piece)
