"""Start a supernet from trained weights: load them, sort the channels, widen without changing what is computed."""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from autoslim_cli.errors import ArtifactError
from autoslim_cli.files import checkpoint
from autoslim_cli.files.atomic import sha256
from autoslim_cli.files.weights import SHOWN, Weights, load_weights
from autoslim_cli.models.library_weights import is_library_name, library_weights
from autoslim_cli.near import listed
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.rebuild import Tensors, assemble, axes, fresh, row_tensors
from autoslim_cli.network.table import Channels, LayerRow, LayerTable, Layout, Segment, ranges
from autoslim_cli.network.walk import OUTPUT
from autoslim_cli.recipe.schema import ModelSettings
from autoslim_cli.slimming.importance import importance

KEY = "model.weights"


def load_trained(
    reading: Reading, model: ModelSettings, directory: Path, *, whole: bool = False, key: str = KEY
) -> tuple[nn.Module, list[str]]:
    """Return a copy of the network with the weights that `model.weights` names, and what was done, for a person.

    Messages name them by `key` of the recipe.

    Only a classifier of another number of classes stays as initialised, and so does what is of another shape around a
    part that is slimmed, as a detector's heads; not if it is to be `whole`. Raises UsageError for an unknown name,
    ArtifactError for a file that is missing, damaged or of another network.
    """
    assert model.weights is not None
    trained = copy.deepcopy(reading.module)
    wanted = {name: t for name, t in trained.state_dict().items() if not name.endswith("num_batches_tracked")}
    if is_library_name(model.weights, directory):
        given = Weights(dict(library_weights(model, model.weights, key).load(key)))
    else:
        given = load_weights(directory / model.weights, key, wanted)
    heads = tuple(f"{row.name}." for row in reading.table.rows if _is_output(row, reading.table))
    left = []
    first = checkpoint.first_names(wanted)
    of_others = {first[name]: tensor for name, tensor in given.tensors.items() if name in first}
    with torch.no_grad():
        for name, tensor in checkpoint.distinct(wanted).items():
            found = given.tensors.get(name, of_others.get(name))  # of a layer under two names either will do
            if found is None or found.shape != tensor.shape:
                around = bool(reading.part) and not name.startswith(f"{reading.part}.")
                if not whole and found is not None and (around or name.startswith(heads)):
                    left.append(name)
                    continue
                there = "missing" if found is None else list(found.shape)
                raise ArtifactError(f"{key}: {model.weights}: {name} is {there}, and {list(tensor.shape)} here")
            if why := checkpoint.broken(name, found, tensor):
                raise ArtifactError(f"{key}: {model.weights}: {why}")
            tensor.copy_(found)
    unknown = [name for name in given.tensors if name not in trained.state_dict()]
    done = [*given.done, *([f"as initialised: {', '.join(left)}"] if left else [])]
    return trained, [*done, *([f"not of this network: {listed(unknown, SHOWN)}"] if unknown else [])]


def weights_digest(model: ModelSettings, directory: Path, key: str = KEY) -> str:
    """Return what `model.weights` stands for: the `sha256:...` of a file, or the address of a library's weights.

    Raises UsageError for an unknown name, ArtifactError for a file that is missing.
    """
    name = str(model.weights)
    if is_library_name(name, directory):
        return library_weights(model, name, key).address
    try:
        return sha256(directory / name)
    except OSError:
        raise ArtifactError(
            f"{key}: no file {directory / name}; train it first, name weights that are there, or leave the key out"
        ) from None


def _is_output(row: LayerRow, table: LayerTable) -> bool:
    """Tell whether a layer gives the logits."""
    pinned = {unit.name for unit in table.units if unit.pinned == OUTPUT}
    return row.multiplies and any(segment.unit in pinned for segment in row.outputs)


@torch.no_grad()
def sort_channels(network: nn.Module, table: LayerTable) -> None:
    """Order every unit's channels by importance in place, so that the first ones are the best; the function is kept.

    Whole granules move. Units whose channels some operation rearranges stay as they are.
    """
    scores = importance(network, table, table.base)
    for unit in table.free:
        if not unit.sortable:
            continue
        granules = scores[unit.name].view(-1, unit.granule).sum(1).argsort(descending=True, stable=True)
        order = (granules.unsqueeze(1) * unit.granule + torch.arange(unit.granule)).flatten()
        for row in table.rows:
            for name, tensor in row_tensors(network, row).items():
                for dim, layout in axes(row, name, tensor).items():
                    if any(segment.unit == unit.name for segment in layout):
                        tensor.copy_(tensor.index_select(dim, _permuted(layout, unit.name, order)))


def _permuted(layout: Layout, unit: str, order: Tensor) -> Tensor:
    """Return where the features of a dimension come from when one unit's channels are put in another order."""
    parts, start = [], 0
    for segment in layout:
        features = torch.arange(segment.base)
        if segment.unit == unit:
            features = features.view(-1, segment.multiplicity)[order].flatten()
        parts.append(start + features)
        start += segment.base
    return torch.cat(parts)


def widened(trained: nn.Module, reading: Reading, channels: Channels) -> nn.Module:
    """Return the network at other channels whose first ones are those of the trained network.

    Weights that read new channels are zero, so a wider network computes what the trained one does, except where
    `changed_by_widening` says. New channels are initialised as the network initialises itself. Randomness: torch's
    global generator.
    """
    table = reading.table
    base = table.base
    common = {name: min(base[name], channels[name]) for name in base}
    initial = fresh(reading.module, table, channels)

    def tensors(row: LayerRow) -> Tensors:
        old = row_tensors(trained, row)
        return {
            name: _placed(tensor, old[name], axes(row, name, tensor), row, base, common, channels)
            for name, tensor in row_tensors(initial, row).items()
        }

    new = assemble(trained, table, channels, tensors)
    return new.train(trained.training)


def _placed(
    new: Tensor,
    old: Tensor,
    layouts: dict[int, Layout],
    row: LayerRow,
    base: Channels,
    common: Channels,
    channels: Channels,
) -> Tensor:
    """Put the trained values where the common channels lie; what reads other channels becomes zero.

    Not in a grouped layer whose groups keep their size: there new channels make new ones alone.
    """
    if not layouts:
        return old.clone()
    placed = new.clone()
    for dim, layout in layouts.items():
        if layout is not row.outputs and new.dim() > 1 and not row.group_inputs:
            there = _indices(layout, channels, common)
            rest = torch.ones(new.shape[dim], dtype=torch.bool)
            rest[there] = False
            placed.index_fill_(dim, rest.nonzero().flatten(), 0.0)
    source, target = old, [torch.arange(length) for length in new.shape]
    for dim, layout in layouts.items():
        source = source.index_select(dim, _indices(layout, base, common))
        target[dim] = _indices(layout, channels, common)
    # New outputs keep their fresh values on the common inputs: only the old block is overwritten.
    placed[torch.meshgrid(*target, indexing="ij")] = source
    return placed


def _indices(layout: Layout, stored: Channels, used: Channels) -> Tensor:
    """Return the places of the features in use."""
    return torch.cat([torch.arange(start, stop) for start, stop in ranges(layout, stored, used)])


def changed_by_widening(reading: Reading) -> list[str]:
    """Say what keeps a wider network from computing what the trained one does.

    Operations that normalise or average over all channels of a unit, and units whose channels change places: of those
    that can be wider.
    """
    wider = [unit for unit in reading.table.free if not unit.capped]
    names = {unit.name for unit in wider}

    def touches(layout: tuple[Segment, ...]) -> bool:
        return any(segment.unit in names for segment in layout)

    rows = {row.name: row for row in reading.table.rows}
    found = [f"the channels of {unit.name} change places" for unit in wider if not unit.sortable]
    for node in reading.graph.nodes:
        row = rows.get(str(node.target)) if node.op == "call_module" else None
        name = str(getattr(node.target, "__name__", node.target)).lower()
        if node.op == "call_module":
            name = type(reading.module.get_submodule(str(node.target))).__name__.lower()
        if node not in reading.mixing or (row and row.multiplies) or name in ("chunk", "split"):
            continue
        sources = [reading.layouts[source][1] for source in node.all_input_nodes if source in reading.layouts]
        sums = row is not None or node not in reading.layouts or "softmax" in name or name == "normalize"
        if sums and any(map(touches, sources)):
            found.append(f"{node.target if node.op == 'call_module' else node.name} works over all channels")
    return found
