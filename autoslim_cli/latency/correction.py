"""Correct predictions by networks that were run end to end, and check them by others."""

from collections.abc import Sequence
from itertools import product

import numpy as np

from autoslim_cli.latency.pieces import Piece
from autoslim_cli.latency.predictor import Latency, Sums, predictor, share_cold
from autoslim_cli.latency.table import Check, Correction, LatencyTable, Measured
from autoslim_cli.slimming.space import Space

RIDGE = 0.02
"""How firmly a correction stays at factors of one, against the mean square error of a prediction."""

LEAST_FACTOR = 0.1
"""What a factor is at least: a layer that takes longer never makes its network faster."""

MOST_TAKEN = 0.5
"""How much of the mean time a constant, or what values take, may take off at most."""

CACHED_MWEIGHTS = tuple(2 ** (number / 2) for number in range(-4, 13))
"""What a fit tries: a quarter of a million weights to 64 million."""


def corrected(table: LatencyTable, pieces: Sequence[Piece], space: Space, name: str) -> LatencyTable:
    """Return a measured table complete: with its correction, and how well it predicts the networks that check it.

    Raises ArtifactError naming a shape or counts of the search space that are missing.
    """
    table = table.model_copy(update={"complete": True})
    latency = predictor(table, pieces, *space.ends, name)
    if table.fitted:
        latency = Latency(latency.layers, fit(latency, table.fitted))
    found = check(latency, table.checked) if table.checked else table.check
    return table.model_copy(update={"correction": latency.correction, "check": found})


def fit(latency: Latency, networks: Sequence[Measured]) -> Correction:
    """Fit factors and a constant to networks run end to end: least squares of relative errors, held near the plain sum.

    What isolated layers cannot show goes in: the cost of a call, fusion across layers, tensors that keep an engine's
    own layout from layer to layer, and weights that have left the caches when their layer's turn comes again. Times
    that are noise would give negative factors, by which a search makes a network faster by adding to it: they are
    bounded.
    """
    sums, ms = [latency.sums(n.channels) for n in networks], np.array([n.mean for n in networks])
    fits = [_ridge(sums, ms, 0.0)]
    if any(cold_grid for _, _, cold_grid in latency.layers):
        fits += [one for cached in CACHED_MWEIGHTS if (one := _ridge(sums, ms, cached))[1].cold > 0]
    _, best = min(fits, key=lambda one: one[0])
    return best.model_copy(update={"networks": len(networks)})


def _ridge(sums: Sequence[Sums], ms: np.ndarray, cached_mweights: float) -> tuple[float, Correction]:
    """Return the error and the correction of ridge regression, with weights cold beyond `cached_mweights` (0: never).

    `ms` (networks,) were measured. The unknowns are changes of the plain sum: of its two factors, by values, by a
    constant, and by cold weights.
    """
    cold = [one.cold_ms * share_cold(one.mweights, cached_mweights) if cached_mweights else 0.0 for one in sums]
    terms = np.array([[s.multiplying_ms, s.other_ms, s.mvalues, 1.0, c] for s, c in zip(sums, cold, strict=True)])
    # Every change counts by what it does: factors as they are, the others against the mean time.
    scale = np.ones(terms.shape[1])
    scale[2:4] = ms.mean() / terms[:, 2:4].mean(axis=0)
    relative = terms * scale / ms[:, None]
    wanted = 1 - terms[:, :2].sum(axis=1) / ms
    # Ridge regression is least squares with a row more for each unknown, which asks it to be zero.
    design = np.vstack([relative / len(ms) ** 0.5, RIDGE * np.eye(len(scale))])
    target = np.concatenate([wanted / len(ms) ** 0.5, np.zeros(len(scale))])
    change = _bounded(design, target, np.array([LEAST_FACTOR - 1, LEAST_FACTOR - 1, -MOST_TAKEN, -MOST_TAKEN, 0.0]))
    multiplying, other, per_mvalue_ms, constant_ms, cold_factor = (change * scale).tolist()
    return float(np.square(design @ change - target).sum()), Correction(
        multiplying=1 + multiplying,
        other=1 + other,
        per_mvalue_ms=per_mvalue_ms,
        constant_ms=constant_ms,
        cold=cold_factor if cached_mweights else 0.0,
        cached_mweights=cached_mweights,
    )


def _bounded(design: np.ndarray, target: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Return the least-squares solution of which no unknown is below `least` (unknowns,).

    They are few: of all choices of those that lie at their bound, the best one that keeps the others above theirs.
    """
    found = list[tuple[float, np.ndarray]]()
    for choice in product((False, True), repeat=len(least)):
        bound, solution = np.array(choice), least.copy()
        left = target - design[:, bound] @ least[bound]
        solution[~bound] = np.linalg.lstsq(design[:, ~bound], left, rcond=None)[0]
        if (solution >= least).all():
            found.append((float(np.square(design @ solution - target).sum()), solution))
            if not bound.any():  # what is best without bounds is best with them
                break
    return min(found, key=lambda one: one[0])[1]


def check(latency: Latency, networks: Sequence[Measured]) -> Check:
    """Compare predictions with networks run end to end that were not fitted."""
    predicted, measured = np.array([latency(n.channels) for n in networks]), np.array([n.mean for n in networks])
    median, p90 = np.quantile(np.abs(predicted - measured) / measured, [0.5, 0.9]).tolist()
    repeats = [abs(n.ms[0] - n.ms[1]) / n.mean for n in networks if len(n.ms) > 1]
    return Check(
        networks=len(networks),
        median_error=median,
        p90_error=p90,
        rank_correlation=_spearman(predicted, measured),
        repeatability=float(np.median(repeats)) if repeats else None,
    )


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Return Spearman's rank correlation (ties are as good as absent among measured times)."""
    if len(one) < 2:
        return 1.0
    ranks = [np.argsort(np.argsort(values, kind="stable")) for values in (one, other)]
    return float(1 - 6 * np.square(ranks[0] - ranks[1]).sum() / (len(one) * (len(one) ** 2 - 1)))
