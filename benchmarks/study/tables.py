"""Print the tables of docs/searches.md."""

import statistics
from collections.abc import Sequence
from typing import Any

from plan import BUDGET_AWARE, CHOSEN, OWN, RETRAINED, VARIANTS, found_rows, rows_of
from ranking import report_ranked
from written import head, spread

Rows = list[dict[str, Any]]


def report(seeds: Sequence[int]) -> None:
    """Print all tables."""
    found = {seed: found_rows(seed) for seed in seeds}
    trained = {seed: rows_of(seed, "retrained.jsonl") for seed in seeds}
    report_found(found)
    report_tight(found)
    report_retrained(trained, found)
    report_sampling(trained)
    report_ranked([row for rows in trained.values() for row in rows], seeds)


def report_found(found: dict[int, Rows]) -> None:
    """Print what each variant's channels lose on fresh images, against the reference of the same supernet."""
    rows = {(seed, row["variant"], row["share"]): row for seed, some in found.items() for row in some}
    last = CHOSEN.base.shares[-1]
    reference = CHOSEN.base.reference
    if not any((seed, reference, last) in rows for seed in found):
        return
    print(f"Loss on fresh images of {reference!r}; of the others, what they add to it on the same supernet.")
    shares = [f"{share} %" for share in CHOSEN.base.shares]
    head("variant", *shares, f"believed at {last} %", "evaluations", "of its multiply-adds", "seeds")
    for name in VARIANTS:
        seeds = [seed for seed in found if (seed, name, last) in rows and (seed, reference, last) in rows]
        if not seeds:
            continue
        cells = []
        for share in CHOSEN.base.shares:
            own, other = ([rows[seed, n, share]["loss"] for seed in seeds] for n in (name, reference))
            less = [a - b for a, b in zip(own, other, strict=True)]
            cells.append(spread(own) if name == reference else spread(less, sign=True))
        cells.append(spread([rows[s, name, last]["believed"] - rows[s, name, last]["loss"] for s in seeds], sign=True))
        cells.append(f"{statistics.mean(rows[s, name, last]['evaluations'] for s in seeds):.0f}")
        work = [rows[s, name, last]["multiply_adds"] / rows[s, reference, last]["multiply_adds"] for s in seeds]
        print(f"| {name} | {' | '.join(cells)} | {statistics.mean(work):.0%} | {len(seeds)} |")


def report_tight(found: dict[int, Rows]) -> None:
    """Print the losses on fresh images at all budgets, the tight ones too."""
    shares = CHOSEN.base.shares + CHOSEN.base.tight
    head("loss on fresh images", *(f"{share} %" for share in shares))
    for name in RETRAINED:
        losses = [
            [row["loss"] for rows in found.values() for row in rows if (row["variant"], row["share"]) == (name, share)]
            for share in shares
        ]
        if any(losses):
            print(f"| {name} | {' | '.join(map(spread, losses))} |")


def report_retrained(trained: dict[int, Rows], found: dict[int, Rows]) -> None:
    """Print what retraining gives.

    Trainings of one supernet's network are no independent trials of a search: their mean is one, and Welch's test and
    the standard error of a difference are over those means.
    """
    head("budget", "network", "test top-1", "against uniform, ± standard error", "p", "supernet's loss", "trainings")
    for share in CHOSEN.base.judged:
        runs = {name: trainings(name, share, trained, found) for name in RETRAINED}
        for name, by_seed in runs.items():
            if by_seed:
                tops = [row["test_top1"] for rows in by_seed.values() for row in rows]
                losses = spread([rows[0]["supernet"]["loss"] for rows in by_seed.values()])
                gain = difference(means(by_seed), means(runs["uniform"])) if name != "uniform" else " | "
                count = f"{len(tops)} of {len(by_seed)}"
                print(f"| {share} % | {name} | {spread(tops, 1, 100)} | {gain} | {losses} | {count} |")
        drawn = [
            r for rows in trained.values() for r in rows if r["network"].startswith("random ") and r["share"] == share
        ]
        if drawn:
            tops, losses = [r["test_top1"] for r in drawn], spread([r["supernet"]["loss"] for r in drawn])
            name = f"random, {len(drawn)} networks"
            gain = difference(tops, means(runs["uniform"]))
            print(f"| {share} % | {name} | {spread(tops, 1, 100)} | {gain} | {losses} | {len(drawn)} |")


def report_sampling(trained: dict[int, Rows]) -> None:
    """Print what is found on supernets whose random sub-networks are drawn in two ways, and what retraining gives."""
    head("budget", "supernet", "network", "loss on fresh images", "test top-1", "trainings")
    for share in CHOSEN.base.judged:
        for other in (OWN, BUDGET_AWARE):
            found = {seed: found_rows(seed, other) for seed in trained}
            for name in ("default", "uniform"):
                rows = [r for some in found.values() for r in some if (r["variant"], r["share"]) == (name, share)]
                runs = trainings(name, share, trained, found)
                tops = [row["test_top1"] for some in runs.values() for row in some]
                if rows:
                    losses = spread([row["loss"] for row in rows])
                    count = f"{len(tops)} of {len(runs)}"
                    print(f"| {share} % | {other} | {name} | {losses} | {spread(tops, 1, 100)} | {count} |")


def trainings(name: str, share: int, trained: dict[int, Rows], found: dict[int, Rows]) -> dict[int, Rows]:
    """Return the trainings of the network that a variant found for a share, by the seed of the supernet."""
    runs = {}
    for seed, rows in trained.items():
        wanted = [row["channels"] for row in found[seed] if (row["variant"], row["share"]) == (name, share)]
        if own := [row for row in rows if row["channels"] in wanted]:
            runs[seed] = own
    return runs


def means(by_seed: dict[int, Rows]) -> list[float]:
    """Return the mean test top-1 for each supernet."""
    return [statistics.mean(row["test_top1"] for row in rows) for rows in by_seed.values()]


def difference(values: Sequence[float], others: Sequence[float]) -> str:
    """Write the difference of two means in points, its standard error, and the p of Welch's test."""
    from scipy.stats import ttest_ind

    if len(values) < 2 or len(others) < 2:
        return " | "
    error = sum(statistics.variance(some) / len(some) for some in (values, others)) ** 0.5
    gain = statistics.mean(values) - statistics.mean(others)
    p = ttest_ind(values, others, equal_var=False).pvalue
    return f"{100 * gain:+.1f} ± {100 * error:.1f} | {f'{p:.3f}' if p >= 0.0005 else '< 0.001'}"
