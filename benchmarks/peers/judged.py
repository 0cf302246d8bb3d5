"""Compare arms: pairs by seed, paired t-tests, Holm's correction."""

import statistics
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def by_seed(rows: Sequence[Row], arm: str, share: int) -> dict[int, float]:
    """Return an arm's test top-1 at a budget, by seed."""
    return {row["seed"]: row["top1"] for row in rows if (row["arm"], row["share"]) == (arm, share)}


def paired(one: dict[int, float], other: dict[int, float]) -> tuple[list[float], list[float]]:
    """Return the values of the seeds that both have, in one order."""
    seeds = sorted(one.keys() & other.keys())
    return [one[seed] for seed in seeds], [other[seed] for seed in seeds]


def best_arm(rows: Sequence[Row], family: str, share: int) -> str | None:
    """Return the arm of a family with the highest mean test top-1 at a budget, among those with the most seeds."""
    arms = dict.fromkeys(row["arm"] for row in rows if (row["family"], row["share"]) == (family, share))
    values = {arm: by_seed(rows, arm, share) for arm in arms}
    if not values:
        return None
    most = max(map(len, values.values()))
    full: dict[str, dict[int, float]] = {arm: some for arm, some in values.items() if len(some) == most}
    return max(full, key=lambda arm: statistics.mean(full[arm].values()))


def p_of(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return the two-sided p of a paired t-test; None of fewer than two pairs, or of equal differences."""
    from scipy.stats import ttest_rel

    differences = [a - b for a, b in zip(one, other, strict=True)]
    if len(differences) < 2 or statistics.stdev(differences) == 0:
        return None
    return float(ttest_rel(one, other).pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number (Holm 1979), in the order given."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    corrected, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = largest
    return corrected


def spread(values: Sequence[float], digits: int = 1, scale: float = 100.0) -> str:
    """Write a mean and its standard deviation, in per cent by default."""
    deviation = f" ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{scale * statistics.mean(values):.{digits}f}{deviation}"
