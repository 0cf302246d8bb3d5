"""Predict latency: the times of a network's layers, summed and corrected."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from autoslim_cli.errors import ArtifactError
from autoslim_cli.latency.interpolation import Grid
from autoslim_cli.latency.pieces import Piece
from autoslim_cli.latency.table import Correction, LatencyTable, LayerTimes, measuring_again
from autoslim_cli.network.table import Channels
from autoslim_cli.recipe.commands import Commands

LEAST_SHARE = 0.1
"""Of the plain sum over its layers: no network is predicted to take less."""


class Sums(NamedTuple):
    """Sums over the layers of a network.

    The ms of convolutions and linear layers, those of all others, the millions of values that layers read and write,
    the ms that cold weights add, and the millions of weights.
    """

    multiplying_ms: float
    other_ms: float
    mvalues: float
    cold_ms: float
    mweights: float


@dataclass(frozen=True)
class Latency:
    """Predict the milliseconds of a network at any channels of its search space."""

    layers: tuple[tuple[Piece, Grid, Grid | None], ...]
    """Each piece, its times, and what cold weights add to them."""
    correction: Correction

    def __call__(self, channels: Channels) -> float:
        """Return the predicted milliseconds."""
        sums, fit = self.sums(channels), self.correction
        ms = fit.multiplying * sums.multiplying_ms + fit.other * sums.other_ms + fit.per_mvalue_ms * sums.mvalues
        if fit.cold:
            ms += fit.cold * sums.cold_ms * share_cold(sums.mweights, fit.cached_mweights)
        return max(ms + fit.constant_ms, LEAST_SHARE * (sums.multiplying_ms + sums.other_ms))

    def sums(self, channels: Channels) -> Sums:
        """Return what a correction weighs."""
        multiplying_ms, other_ms, cold_ms, values, weights = 0.0, 0.0, 0.0, 0, 0
        for piece, grid, cold_grid in self.layers:
            counts = piece.counts(channels)
            if piece.multiplies:
                multiplying_ms += grid.at(counts)
            else:
                other_ms += grid.at(counts)
            cold_ms += cold_grid.at(counts) if cold_grid else 0.0
            values += sum(tensor.values(channels) for tensor in piece.tensors)
            weights += piece.weights(channels)
        return Sums(multiplying_ms, other_ms, values / 1e6, cold_ms, weights / 1e6)


def share_cold(mweights: float, cached_mweights: float) -> float:
    """Return which share of a network's weights leaves the caches from one run to the next, 0 to 1.

    `mweights` are its millions of weights, `cached_mweights` those that the caches keep: none leaves up to these, all
    do of twice as many.
    """
    return min(max(mweights / cached_mweights - 1, 0.0), 1.0)


def predictor(
    table: LatencyTable,
    pieces: Sequence[Piece],
    low: Channels,
    high: Channels,
    name: str,
    commands: Commands | None = None,
) -> Latency:
    """Return the predictor of a network's latency from a table that has all its layer shapes from `low` to `high`.

    `name` is the table's path, `commands` are those on the recipe in use, by default on the one that the table lies in.
    Raises ArtifactError naming a shape or counts that are missing.
    """
    again = measuring_again(Path(name), table, commands, *(() if table.complete else ("--resume",)))
    times_of = {layer.shape: layer for layer in table.layers}
    missing = {piece.shape: piece for piece in pieces if piece.shape not in times_of}
    if missing:
        first = next(iter(missing.values()))
        raise ArtifactError(
            f"{name}: {len(missing)} of {len({piece.shape for piece in pieces})} layer shapes are missing, as that of "
            f"{first.name} ({first.shape}): the table is of {table.model.name} at {list(table.model.input)}"
            f"{'' if table.complete else ', and not complete'}; "
            f"`{again}` measures this network"
        )
    for piece in pieces:
        _refuse_other_counts(times_of[piece.shape], piece, low, high, name, again)
    return Latency(tuple((piece, *_grids(times_of[piece.shape])) for piece in pieces), table.correction)


def _grids(layer: LayerTimes) -> tuple[Grid, Grid | None]:
    """Return a layer's times as a grid, and what cold weights add as another."""
    counts = tuple(map(tuple, layer.counts))
    return Grid(counts, tuple(layer.ms)), Grid(counts, tuple(layer.cold_ms)) if layer.cold_ms else None


def _refuse_other_counts(layer: LayerTimes, piece: Piece, low: Channels, high: Channels, name: str, again: str) -> None:
    """Raise ArtifactError if a grid has other axes than a piece, or counts that it leaves: `again` measures them."""
    if len(layer.counts) != len(piece.axes):
        raise ArtifactError(
            f"{name}: {layer.example} ({layer.shape}) has {len(layer.counts)} axes of counts, not {len(piece.axes)}"
        )
    for axis, least, most in zip(layer.counts, piece.counts(low), piece.counts(high), strict=True):
        if least < axis[0] or most > axis[-1]:
            raise ArtifactError(
                f"{name}: {piece.name} has {least} to {most} channels in this search space, but was measured at "
                f"{axis[0]} to {axis[-1]}; `{again}` measures this space"
            )
