"""Measure this machine's latency: `autoslim profile`."""

from functools import partial

from autoslim_cli.errors import advice_on_memory
from autoslim_cli.files.lock import locked
from autoslim_cli.interruption import saying_what_is_kept
from autoslim_cli.latency.correction import corrected
from autoslim_cli.latency.grid import layer_shapes
from autoslim_cli.latency.local_device import local_device
from autoslim_cli.latency.measuring import CHECKED, FITTED, measure_networks, measure_shapes, resumed
from autoslim_cli.latency.pieces import pieces
from autoslim_cli.latency.random_networks import random_channels
from autoslim_cli.latency.summary import Summary, summary
from autoslim_cli.latency.table import DType, Engine, LatencyTable, replacing, table_name, write_table
from autoslim_cli.stages.project import Project


def profile(
    project: Project, *, engine: Engine, dtype: DType, batch: int, channels_last: bool, resume: bool
) -> Summary:
    """Write `latency-<device>.json`; return its path, and how well it predicts networks that it was not fitted on.

    Raises UsageError if the engine is not installed, or the table that is there is of another device; ArtifactError if
    the table to go on with is of something else.
    """
    recipe, reading, space, place = project.recipe, project.network.reading, project.network.space, project.device
    found, reporter = pieces(reading), project.reporter
    device = local_device(place, engine, dtype, batch, channels_last)
    path, shapes = project.directory / table_name(device), layer_shapes(found, space)
    with locked(path), saying_what_is_kept(reporter.say, f"{path} holds what was measured"):
        model, network = recipe.model.architecture, project.network.digest
        table = LatencyTable(model=model, network=network, tie=recipe.space.tie, device=device, layers=[])
        if not resume:
            replacing(path, device, reporter.say)
        elif path.exists():
            table = resumed(path, table, shapes, space)
        reporter.say(
            f"{device}: {len(shapes)} layer shapes, {len(table.layers)} of them measured; {FITTED + CHECKED} networks"
        )
        with advice_on_memory(f"--batch {batch} is too much for this network: lower it, model.input or supernet.width"):
            # 1. Every layer shape, on as fine a grid as it needs.
            table = measure_shapes(path, table, shapes, reading, space, place, reporter)
            # 2. Networks as a whole, twice over.
            draw = partial(random_channels, space, recipe.supernet, recipe.seed)
            table = measure_networks(path, table, draw, reading, place, reporter)
        # 3. A correction fitted on some of them, checked by the others.
        table = corrected(table, found, space, str(path))
        write_table(path, table)
    return summary(path, table, found, space)
