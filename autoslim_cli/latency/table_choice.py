"""Choose the latency table that a search takes."""

from dataclasses import replace
from pathlib import Path

import torch

from autoslim_cli.errors import ArtifactError
from autoslim_cli.files.names import TABLES, is_aside
from autoslim_cli.latency.local_device import is_local, local_device, place_of
from autoslim_cli.latency.table import (
    Device,
    read_table,
    refuse_incomplete,
    refuse_other_model,
    table_name,
)
from autoslim_cli.recipe.commands import Commands
from autoslim_cli.recipe.schema import ModelSettings


def table_for_search(
    named: Path | None, directory: Path, model: ModelSettings, network: str, place: torch.device, commands: Commands
) -> Path:
    """Return the path of the table that is named, or of this machine's own in a recipe's directory.

    `network` is the digest of what `model` is, `commands` are those on its recipe.

    Raises ArtifactError if this machine has none there, or the table is of another machine or network, or not
    complete; UsageError if it is of this machine, but its engine is not installed.
    """
    path = named or _own_table(directory, place, commands)
    table = read_table(path)
    device, commands = table.device, commands_on(table.device, place, commands)
    refuse_other_model(path, table, model, network, commands)
    refuse_incomplete(path, table, commands)
    if device.engine != "imported" and is_local(device, place):
        local_device(place_of(device, place), device.engine, device.dtype, device.batch, device.channels_last)
    return path


def measured_otherwise(device: Device, place: torch.device, *, named: bool) -> str:
    """Say with what else a table of this machine was measured than it has now; nothing where it is of another.

    Of a table that a person `named` the threads may be meant.
    """
    if device.engine == "imported" or not is_local(device, place):
        return ""
    there = place_of(device, place)
    now = local_device(there, device.engine, device.dtype, device.batch, device.channels_last)
    found = [f"by {device.engine} {device.version}, not {now.version}"] if device.version != now.version else []
    if not named and device.threads != now.threads:
        found.append(f"with {device.threads} threads, not {now.threads}")
    return " and ".join(found)


def commands_on(device: Device, place: torch.device, commands: Commands) -> Commands:
    """Return the commands that measure a device: where its kind is not that of `place`, they say which it is.

    No command measures one whose times were imported.
    """
    if device.engine == "imported" or device.kind == place.type:
        return commands
    return replace(commands, overrides=(*commands.overrides, f"device={device.kind}"))


def _own_table(directory: Path, place: torch.device, commands: Commands) -> Path:
    """Return this machine's table: of as many threads as there are now, or the only one of eager PyTorch."""
    path = directory / table_name(local_device(place, "eager", "fp32", 1, True))
    tables = {path: read_table(path).device for path in sorted(directory.glob(TABLES)) if not is_aside(path)}
    if path in tables:
        if not _is_default(tables[path], place):
            raise ArtifactError(
                f"{path}: measured on {tables[path]}, which is not this machine by eager PyTorch; run "
                f"`{commands('profile')}`, or name the table with --latency-table to search for that device"
            )
        return path
    defaults = [found for found, device in tables.items() if _is_default(device, place)]
    if len(defaults) == 1:
        return defaults[0]
    hint = f"; --latency-table names another: {', '.join(found.name for found in tables)}" if tables else ""
    raise ArtifactError(f"{path}: no latency table of this machine; `{commands('profile')}` measures one{hint}")


def _is_default(device: Device, place: torch.device) -> bool:
    """Tell whether a device is this machine as a search takes it by itself: eager, in fp32, an image at a time."""
    return is_local(device, place) and (device.engine, device.dtype, device.batch) == ("eager", "fp32", 1)
