"""Predict latency: times of layers, interpolated between measured channel counts, summed and corrected."""

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from autoslim_cli.errors import ArtifactError
from autoslim_cli.latency.table import Check, Correction, LatencyTable, LayerTimes, Measured
from autoslim_cli.network.pieces import Piece
from autoslim_cli.network.table import Channels

RIDGE = 0.02
"""How firmly a correction stays at factors of one, against the mean square error of a prediction."""

CACHED_MWEIGHTS = tuple(2 ** (number / 2) for number in range(-4, 13))
"""What a fit tries: a quarter of a million weights to 64 million."""


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

    layers: tuple[tuple[Piece, Grid, Grid | None], ...]
    """Each piece, its times, and what cold weights add to them."""
    correction: Correction

    def __call__(self, channels: Channels) -> float:
        """Return the predicted milliseconds."""
        sums, fit = self.sums(channels), self.correction
        ms = fit.multiplying * sums.multiplying + fit.other * sums.other + fit.per_mvalue_ms * sums.mvalues
        if fit.cold:
            ms += fit.cold * sums.cold * share_cold(sums.mweights, fit.cached_mweights)
        return max(ms + fit.constant_ms, 1e-6)

    def sums(self, channels: Channels) -> "Sums":
        """Return what a correction weighs."""
        times, values, cold, weights = [0.0, 0.0], 0, 0.0, 0
        for piece, grid, extra in self.layers:
            counts = piece.counts(channels)
            times[not piece.multiplies] += grid.at(counts)
            values += sum(tensor.values(channels) for tensor in piece.tensors)
            weights += piece.weights(channels)
            if extra:
                cold += extra.at(counts)
        return Sums(times[0], times[1], values / 1e6, cold, weights / 1e6)


class Sums(NamedTuple):
    """Sums over the layers of a network.

    The ms of convolutions and linear layers, those of all others, the millions of values that layers read and write,
    the ms that cold weights add, and the millions of weights.
    """

    multiplying: float
    other: float
    mvalues: float
    cold: float
    mweights: float


def share_cold(mweights: float, cached: float) -> float:
    """Return which share of a network's weights leaves the caches from one run to the next: none to all."""
    return min(max(mweights / cached - 1, 0.0), 1.0)


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
    layers = tuple((piece, *grids_of(known[piece.shape])) for piece in pieces)
    return Latency(layers, table.correction)


def grids_of(layer: LayerTimes) -> tuple[Grid, Grid | None]:
    """Return a layer's times as a grid, and what cold weights add as another."""
    counts = tuple(map(tuple, layer.counts))
    return Grid(counts, tuple(layer.ms)), Grid(counts, tuple(layer.cold_ms)) if layer.cold_ms else None


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

    What isolated layers cannot show goes in: the cost of a call, fusion across layers, tensors that keep an engine's
    own layout from layer to layer, and weights that have left the caches when their layer's turn comes again.
    """
    sums, ms = [latency.sums(n.channels) for n in networks], [n.mean for n in networks]
    tries = [_solve(sums, ms, 0.0)]
    if any(extra for _, _, extra in latency.layers):
        tries += [one for cached in CACHED_MWEIGHTS if (one := _solve(sums, ms, cached))[1]["cold"] > 0]
    return Correction(**min(tries, key=lambda one: one[0])[1], networks=len(networks))


def _solve(sums: Sequence[Sums], ms: Sequence[float], cached: float) -> tuple[float, dict[str, float]]:
    """Return the error and the terms of least squares, with weights cold beyond `cached` million (0: never)."""
    import torch

    cold = [one.cold * share_cold(one.mweights, cached) if cached else 0.0 for one in sums]
    rows = [[s.multiplying, s.other, s.mvalues, 1.0, extra] for s, extra in zip(sums, cold, strict=True)]
    values, times = torch.tensor(rows, dtype=torch.float64), torch.tensor(ms, dtype=torch.float64)[:, None]
    # Every change counts by what it does: factors as they are, the others against the mean time.
    scale = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    scale[2:4] = times.mean() / values[:, 2:4].mean(0)
    design = values * scale / times
    wanted = 1 - values[:, :2].sum(1, keepdim=True) / times
    penalty = RIDGE**2 * torch.eye(5, dtype=torch.float64)
    change = torch.linalg.solve(design.T @ design / len(ms) + penalty, design.T @ wanted / len(ms))
    error = (design @ change - wanted).square().mean() + RIDGE**2 * change.square().sum()
    multiplying, other, per_mvalue, constant, factor = (change.squeeze(1) * scale).tolist()
    return float(error), {
        "multiplying": 1 + multiplying,
        "other": 1 + other,
        "per_mvalue_ms": per_mvalue,
        "constant_ms": constant,
        "cold": factor if cached else 0.0,
        "cached_mweights": cached,
    }


def check(latency: Latency, networks: Sequence[Measured]) -> Check:
    """Compare predictions with networks run end to end that were not fitted."""
    predicted = [latency(network.channels) for network in networks]
    errors = sorted(abs(p - n.mean) / n.mean for p, n in zip(predicted, networks, strict=True))
    repeats = sorted(abs(n.ms[0] - n.ms[1]) / n.mean for n in networks if len(n.ms) > 1)
    return Check(
        networks=len(networks),
        median_error=_quantile(errors, 0.5),
        p90_error=_quantile(errors, 0.9),
        rank_correlation=_spearman(predicted, [network.mean for network in networks]),
        repeatability=_quantile(repeats, 0.5) if repeats else None,
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
