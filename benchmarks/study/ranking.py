"""Print how supernets' scores rank networks beside how another training of them does."""

import json
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from plan import CHOSEN, OTHERS, OWN, RETRAINED, rows_of
from written import head

Rows = list[dict[str, Any]]
RESAMPLED = 2000
"""Bootstrap samples of an interval."""
FEWEST = 5
"""Networks of which an order says something."""
GROUPS: dict[str, Callable[[str], bool]] = {
    "all": lambda name: True,
    "random alone": lambda name: name.startswith("random "),
    "good": lambda name: name in RETRAINED,
}
"""Which networks are ranked, by what found them. Users choose among good ones: searched, one width, best of random."""


def report_ranked(trained: Rows, supernets: Sequence[int]) -> None:
    """Print rank correlations at every budget: of another training (the ceiling), and of each supernet's scores."""
    head("budget", "networks", "ranked by", "Kendall", "Spearman")
    for share in CHOSEN.base.judged:
        for group, within in GROUPS.items():
            tops: dict[str, list[float]] = {}
            for row in trained:
                if row["share"] == share and within(row["network"]):
                    tops.setdefault(json.dumps(row["channels"]), []).append(row["test_top1"])
            once = {network: values[0] for network, values in tops.items()}
            again = {network: values[1] for network, values in tops.items() if len(values) > 1}
            print_ranked(share, group, "another training (the ceiling)", once, [again])
            means = {network: statistics.mean(values) for network, values in tops.items()}
            for other in (OWN, *OTHERS):
                for key, sign in (("loss", -1), ("top1", 1)):
                    scores = [scores_of(seed, other, key, sign) for seed in supernets]
                    print_ranked(share, group, f"{other}, {key}", means, scores)


def scores_of(seed: int, other: str, key: str, sign: int) -> dict[str, float]:
    """Return what a supernet says of each network, larger for a better one."""
    rows = [row for row in rows_of(seed, "ranked.jsonl") if row["other"] == other]
    return {json.dumps(row["channels"]): sign * row["supernet"][key] for row in rows}


def print_ranked(
    share: int, group: str, by: str, trained: Mapping[str, float], scores: Sequence[Mapping[str, float]]
) -> None:
    """Print how scores rank what training gives, a number for each of them that has enough of the networks."""
    from scipy.stats import kendalltau, spearmanr

    shared = [(one, sorted(trained.keys() & one.keys())) for one in scores]
    pairs = [([one[n] for n in some], [trained[n] for n in some]) for one, some in shared if len(some) >= FEWEST]
    if pairs:
        count = ", ".join(dict.fromkeys(str(len(one)) for one, _ in pairs))
        cells = [", ".join(interval(correlation, *pair) for pair in pairs) for correlation in (kendalltau, spearmanr)]
        print(f"| {share} % | {group}, {count} | {by} | {' | '.join(cells)} |")


def interval(correlation: Callable[..., Any], one: Sequence[float], other: Sequence[float]) -> str:
    """Write a rank correlation and its 95 % interval: percentiles of the bootstrap over networks.

    Networks that are all alike have none.
    """
    if len(set(one)) == 1 or len(set(other)) == 1:
        return "none"
    rng = random.Random(0)
    drawn: list[float] = []
    while len(drawn) < RESAMPLED:
        places = rng.choices(range(len(one)), k=len(one))
        some, same = [one[k] for k in places], [other[k] for k in places]
        if len(set(some)) > 1 and len(set(same)) > 1:  # a sample of networks that are all alike has none either
            drawn.append(correlation(some, same).statistic)
    low, *_, high = statistics.quantiles(drawn, n=40)
    return f"{correlation(one, other).statistic:.2f} ({low:.2f} to {high:.2f})"
