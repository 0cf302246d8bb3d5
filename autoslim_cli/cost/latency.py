"""Predict latency: times of layers, interpolated between measured channel counts, summed and corrected."""

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoslim_cli.errors import ArtifactError
from autoslim_cli.files.latency_table import Check, Correction, LatencyTable, LayerTimes, Measured
from autoslim_cli.network.pieces import Piece
from autoslim_cli.network.table import Channels

RIDGE = 0.02
"""How firmly a correction stays at factors of one, against the mean square error of a prediction."""


@dataclass(frozen=True)
class Grid:
    """Times on a rectangular grid of counts, multilinear between its points and constant beyond its ends."""

    counts: tuple[tuple[int, ...], ...]
    ms: tuple[float, ...]

    def at(self, counts: Sequence[int]) -> float:
        """Return the milliseconds at some counts."""
        corners: list[list[tuple[int, float]]] = []
        for axis, count in zip(self.counts, counts, strict=True):
            right = bisect.bisect_left(axis, count)
            if right == len(axis) or axis[right] == count or right == 0:
                corners.append([(min(right, len(axis) - 1), 1.0)])
            else:
                share = (count - axis[right - 1]) / (axis[right] - axis[right - 1])
                corners.append([(right - 1, 1 - share), (right, share)])
        total = 0.0
        for corner in itertools.product(*corners):
            place, weight = 0, 1.0
            for (index, share), axis in zip(corner, self.counts, strict=True):
                place, weight = place * len(axis) + index, weight * share
            total += weight * self.ms[place]
        return total


@dataclass(frozen=True)
class Latency:
    """Predict the milliseconds of a network at any channels of its search space."""

    layers: tuple[tuple[Piece, Grid], ...]
    correction: Correction

    def __call__(self, channels: Channels) -> float:
        """Return the predicted milliseconds."""
        multiplying, other, mvalues = self.sums(channels)
        fit = self.correction
        ms = fit.multiplying * multiplying + fit.other * other + fit.per_mvalue_ms * mvalues + fit.constant_ms
        return max(ms, 1e-6)

    def sums(self, channels: Channels) -> tuple[float, float, float]:
        """Return the ms of convolutions and linear layers, those of all others, and the millions of values moved."""
        times, values = [0.0, 0.0], 0
        for piece, grid in self.layers:
            times[not piece.multiplies] += grid.at(piece.counts(channels))
            values += sum(tensor.values(channels) for tensor in piece.tensors)
        return times[0], times[1], values / 1e6


def predictor(table: LatencyTable, pieces: Sequence[Piece], low: Channels, high: Channels, name: str) -> Latency:
    """Return the predictor of a network's latency from a table that holds all its layer shapes from `low` to `high`.

    Raises ArtifactError naming a shape or counts that are missing.
    """
    known = {layer.shape: layer for layer in table.layers}
    missing = {piece.shape: piece for piece in pieces if piece.shape not in known}
    if missing:
        first = next(iter(missing.values()))
        raise ArtifactError(
            f"{name}: {len(missing)} of {len({piece.shape for piece in pieces})} layer shapes are missing, as that of "
            f"{first.name} ({first.shape}): the table is of {table.model.name} at {list(table.model.input)}"
            f"{'' if table.complete else ', and not complete'}; `autoslim profile` measures this network"
            f"{'' if table.complete else ' (--resume goes on)'}"
        )
    for piece in pieces:
        _covers(known[piece.shape], piece, low, high, name)
    layers = tuple((piece, grid_of(known[piece.shape])) for piece in pieces)
    return Latency(layers, table.correction)


def grid_of(layer: LayerTimes) -> Grid:
    """Return a layer's times as a grid."""
    return Grid(tuple(map(tuple, layer.counts)), tuple(layer.ms))


def _covers(layer: LayerTimes, piece: Piece, low: Channels, high: Channels, name: str) -> None:
    """Refuse a grid of another kind, or one that a layer's counts leave."""
    if len(layer.counts) != len(piece.axes):
        raise ArtifactError(
            f"{name}: {layer.example} ({layer.shape}) has {len(layer.counts)} axes of counts, not {len(piece.axes)}"
        )
    for axis, least, most in zip(layer.counts, piece.counts(low), piece.counts(high), strict=True):
        if least < axis[0] or most > axis[-1]:
            raise ArtifactError(
                f"{name}: {piece.name} has {least} to {most} channels in this search space, but was measured at "
                f"{axis[0]} to {axis[-1]}; `autoslim profile` measures this space"
            )


# -- against networks that were run ------------------------------------------------------------------------------------


def fit(latency: Latency, networks: Sequence[Measured]) -> Correction:
    """Fit factors and a constant to networks run end to end: least squares of relative errors, held near the plain sum.

    What isolated layers cannot show goes in: caches that are warm or cold, the cost of a call, fusion across layers,
    and tensors that keep an engine's own layout from layer to layer.
    """
    import torch

    sums = torch.tensor([[*latency.sums(n.channels), 1.0] for n in networks], dtype=torch.float64)
    ms = torch.tensor([[network.mean] for network in networks], dtype=torch.float64)
    scale = torch.stack([torch.ones(()), torch.ones(()), ms.mean() / sums[:, 2].mean(), ms.mean()]).double()
    design = sums * scale / ms
    wanted = 1 - (sums[:, :1] + sums[:, 1:2]) / ms
    normal = design.T @ design / len(networks) + RIDGE**2 * torch.eye(4, dtype=torch.float64)
    change = torch.linalg.solve(normal, design.T @ wanted / len(networks)).squeeze(1) * scale
    multiplying, other, per_mvalue, constant = change.tolist()
    return Correction(
        multiplying=1 + multiplying,
        other=1 + other,
        per_mvalue_ms=per_mvalue,
        constant_ms=constant,
        networks=len(networks),
    )


def check(latency: Latency, networks: Sequence[Measured]) -> Check:
    """Compare predictions with networks run end to end that were not fitted."""
    predicted = [latency(network.channels) for network in networks]
    errors = sorted(abs(p - n.mean) / n.mean for p, n in zip(predicted, networks, strict=True))
    repeats = sorted(abs(n.ms[0] - n.ms[-1]) / n.mean for n in networks)
    return Check(
        networks=len(networks),
        median_error=_quantile(errors, 0.5),
        p90_error=_quantile(errors, 0.9),
        rank_correlation=_spearman(predicted, [network.mean for network in networks]),
        repeatability=_quantile(repeats, 0.5),
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return a quantile of ascending values, linear between them."""
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def _spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Spearman's rank correlation (ties are as good as absent among measured times)."""
    ranks = [{place: rank for rank, place in enumerate(sorted(range(len(v)), key=v.__getitem__))} for v in (one, other)]
    count = len(one)
    distance = sum((ranks[0][place] - ranks[1][place]) ** 2 for place in range(count))
    return 1 - 6 * distance / (count * (count**2 - 1)) if count > 1 else 1.0
