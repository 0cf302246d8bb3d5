"""Describe networks: their layer table and units, what they cost, and how they differ from the base network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoslim_cli.cost.around_part import flops_around
from autoslim_cli.cost.closed_form import flops, params
from autoslim_cli.cost.configs import check_cost
from autoslim_cli.cost.costs import Costs
from autoslim_cli.cost.fvcore_count import fvcore_flops
from autoslim_cli.errors import UsageError
from autoslim_cli.files import checkpoint
from autoslim_cli.files.channel_config import ChannelConfig, config_in, describe, read_config
from autoslim_cli.files.learned import learned_from
from autoslim_cli.files.making import making_network
from autoslim_cli.latency.pieces import pieces
from autoslim_cli.latency.predictor import predictor
from autoslim_cli.latency.table import LatencyTable, read_table, refuse_incomplete, refuse_other_model
from autoslim_cli.models.trust import Trust, build_named_by
from autoslim_cli.models.zoo import build, torchvision_names
from autoslim_cli.near import near
from autoslim_cli.network.digest import digest
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.rebuild import fresh
from autoslim_cli.network.table import Channels, LayerTable, features
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.schema import ModelSettings, SpaceSettings
from autoslim_cli.slimming.constraints import constrained
from autoslim_cli.slimming.space import Space
from autoslim_cli.stages.project import Project


def units(project: Project) -> list[dict[str, Any]]:
    """Return every channel unit of the recipe's network, in the network's order."""
    return units_of(project.network.space, project.network.reading.table)


def units_of(space: Space, table: LayerTable) -> list[dict[str, Any]]:
    """Return every channel unit of a space, in the network's order.

    Where a unit decides a part of a layer's channels alone, `parts` says which: ranges of the base network's.
    """
    parts = _parts(table)
    return [
        {
            "name": name,
            "layers": list(unit.unit.layers),
            "parts": {layer: ranges for layer, ranges in parts.get(name, {}).items() if layer in unit.unit.layers},
            "base": unit.unit.base,
            "supernet": unit.largest,
            "min": unit.smallest,
            "step": unit.step,
            "pinned": unit.unit.pinned,
            "capped": unit.unit.capped,
        }
        for name, unit in space.units.items()
    ]


def _parts(table: LayerTable) -> dict[str, dict[str, list[list[int]]]]:
    """Return for each unit the layers that others decide with it, and the ranges of channels that are its own."""
    found: dict[str, dict[str, list[list[int]]]] = {}
    for row in table.rows:
        start, several = 0, len({segment.unit for segment in row.outputs}) > 1
        for segment in row.outputs:
            if several and segment.unit:
                ranges = found.setdefault(segment.unit, {}).setdefault(row.name, [])
                begins = ranges.pop()[0] if ranges and ranges[-1][1] == start else start
                ranges.append([begins, start + segment.base])
            start += segment.base
    return found


def layers_in(unit: Mapping[str, Any]) -> list[str]:
    """Name the layers of a unit of `units_of`: `mid[0:8]` where it decides these channels of a layer alone."""

    def named(layer: str) -> str:
        ranges = [f"{start}:{stop}" for start, stop in unit["parts"].get(layer, [])]
        return layer + (f"[{','.join([*ranges[:2], *(['...'] if ranges[2:] else [])])}]" if ranges else "")

    return list(map(named, unit["layers"]))


def info(
    what: str,
    model: ModelSettings | None,
    latency_table: Path | None = None,
    directory: Path | None = None,
    *,
    shape: tuple[int, int, int] | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Describe a channel config, a checkpoint, or (with `model`) a network by name, as of the recipe in `directory`.

    `shape` is that of an image (channels, height, width) where it is another than a file's own.

    Returns its layer table, FLOPs and parameters, its base network's, fvcore's count of the built network, and the
    latency that a table predicts; where a part of it is slimmed, the FLOPs of the rest, about; of a checkpoint, its
    classes and how images are normalised. With `trust` a file may
    call code that its recipe does not name. Raises UsageError without, ArtifactError if the table does not hold its
    layers.
    """
    path = Path(what)
    channels, steering, facts = (None, SpaceSettings(), {}) if model else network_in(path)
    learned = learned_from(facts)
    settings = channels.model if channels else model
    assert settings is not None
    trusted = Trust.in_recipe_of(path, anything=trust)
    built = build(model, directory or Path()) if model else build_named_by(path, settings, trusted)
    as_built = at_shape = read(built, *settings.shapes, part=settings.trace)
    shown = settings.model_copy(update={"input": shape or settings.input})
    if shown.input != settings.input:
        at_shape = read(built, *shown.shapes, part=shown.trace)
    times = read_table(latency_table) if latency_table else None
    if latency_table and times:
        refuse_other_model(latency_table, times, shown, digest(at_shape))
        refuse_incomplete(latency_table, times)
        steering = steering.model_copy(update={"tie": times.tie})
    reading = constrained(as_built, steering)
    chosen: Channels = reading.table.base
    if channels is not None:
        space = Space.of(reading.table, width=1.0, min_width=0.5, groups=1, divisor=1)
        chosen = space.check(channels.channels, what, bounded=False)
        check_cost(path, channels, Costs.closed_form(reading.table), chosen)
    if at_shape is not as_built:
        reading = constrained(at_shape, steering)
    table, base = reading.table, reading.table.base
    network = fresh(reading.module, table, chosen)
    counted, theirs = flops(table, chosen), fvcore_flops(reading.traced(network), *reading.inputs)
    latency = _latency(reading, chosen, times, str(latency_table)) if times else {}
    return {
        "model": describe(shown),
        "flops": counted,
        "params": params(table, chosen),
        "fvcore_flops": theirs,
        "agrees": counted == theirs,
        "base": {"flops": flops(table, base), "params": params(table, base)},
        **({"flops_around": flops_around(network, shown.trace, *shown.shapes)} if shown.trace else {}),
        **latency,
        **({"learned_from": learned.model_dump()} if learned else {}),
        "notes": list(table.notes),
        "layers": [
            {
                "name": row.name,
                "kind": row.kind,
                "inputs": features(row.inputs, chosen),
                "outputs": features(row.outputs, chosen),
                "base_outputs": features(row.outputs, base),
                "groups": features(row.inputs, chosen) // row.group_inputs if row.group_inputs else 1,
                "flops": row.flops(chosen),
                "params": row.params(chosen),
            }
            for row in table.rows
        ],
    }


def _latency(reading: Reading, channels: Channels, times: LatencyTable, name: str) -> dict[str, Any]:
    """Return the milliseconds that a latency table predicts, and of which device."""
    latency = predictor(times, pieces(reading), channels, channels, name)
    return {"latency": {"predicted_ms": latency(channels), "device": str(times.device)}}


def network_in(path: Path) -> tuple[ChannelConfig, SpaceSettings, dict[str, Any]]:
    """Return the model and channels that a file holds, how its units are steered, and a checkpoint's facts.

    The file is a channel config or a checkpoint; of a supernet, its largest channels.
    Raises UsageError for a path that is neither, ArtifactError for a file that is missing, damaged or foreign.
    """
    if not path.exists() and path.suffix not in (".json", ".safetensors"):
        names = near(str(path), (name for some in torchvision_names() for name in some))
        meant = "".join(f"; did you mean torchvision/{name}?" for name in names)
        raise UsageError(
            f"{path}: neither a file, nor a recipe, nor a model name (torchvision/NAME, timm/NAME, autoslim/NAME, "
            f"package.module:factory or ./net.py:factory){meant}"
        )
    if path.suffix == ".json":
        return read_config(path), SpaceSettings(), {}
    facts = checkpoint.read_any(path, making_network(path))
    if facts["format"] == checkpoint.MODEL:
        return config_in(path, facts), SpaceSettings(), facts
    config = ChannelConfig.model_validate({"model": facts["model"], "channels": facts["channels"]})
    return config, SpaceSettings.model_validate(facts["made_from"]["recipe"]["space"]), facts
