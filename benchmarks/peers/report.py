"""Print the tables of docs/proof.md from the rows."""

import statistics
from collections.abc import Sequence

from judged import best_arm, by_seed, holm, p_of, paired, spread
from plan import ARMS, BASES, OURS, Chosen, Row, rows_of

FILLED = 0.97
"""The least share of a budget that an arm must use to be compared at it."""


def report(names: Sequence[str]) -> None:
    """Print every base network's table, and our best arm against the others'."""
    rows = [row for name in names for row in rows_of(Chosen(name).file("final"))]
    if not rows:
        print("no results yet")
        return
    for name in names:
        for share in BASES[name].shares:
            if some := [row for row in rows if (row["base"], row["share"]) == (name, share)]:
                print(f"\n{BASES[name].about}, {share} %: at most {some[0]['budget']:,} FLOPs; {base_network(name)}")
                print_arms(some)
    print_tests(rows)


def base_network(name: str) -> str:
    """Say what the base network reaches that the peers' arms start from."""
    tops = [row["top1"] for row in rows_of(Chosen(name).file("trained")) if row["what"] == "base"]
    return f"the base network reaches {spread(tops)} % (n = {len(tops)})"


def print_arms(rows: Sequence[Row]) -> None:
    """Print one line for each arm, the best first."""
    print("\n| channels | start | test top-1 | n | FLOPs | fill | epochs | multiply-adds, all told |")
    print("| --- " * 8 + "|")
    order = {arm.name: place for place, arm in enumerate(ARMS)}
    arms = sorted({row["arm"] for row in rows}, key=lambda arm: order.get(arm, len(order)))
    groups = {arm: [row for row in rows if row["arm"] == arm] for arm in arms}
    for some in sorted(groups.values(), key=lambda group: -mean(group, "top1")):
        one = some[0]
        under = "" if mean(some, "fill") >= FILLED else " (under)"
        print(
            f"| {one['source']} | {one['start']} | {spread([row['top1'] for row in some])} | {len(some)} "
            f"| {mean(some, 'flops'):,.0f} "
            f"| {mean(some, 'fill'):.1%}{under} | {mean(some, 'epochs'):.0f} | {mean(some, 'multiply_adds'):.2e} |"
        )


def mean(rows: Sequence[Row], name: str) -> float:
    """Return the mean of a column."""
    return statistics.mean(float(row[name]) for row in rows)


def print_tests(rows: Sequence[Row]) -> None:
    """Print our best arm against every other family's best: paired by seed, p corrected over all these comparisons."""
    tests = tests_of(rows)
    corrected = iter(holm([test["p"] for test in tests if test["p"] is not None]))
    print("\n| base, budget | our best arm | against | difference in points | n | p, Holm-corrected |")
    print("| --- " * 6 + "|")
    for test in tests:
        p = "" if test["p"] is None else f"{next(corrected):.3g}"
        pairs = len(test["differences"])
        gain = spread(test["differences"], 2)
        print(f"| {test['base']}, {test['share']} % | {test['ours']} | {test['other']} | {gain} | {pairs} | {p} |")


def tests_of(rows: Sequence[Row]) -> list[Row]:
    """Return every comparison of our best arm with another family's best, at every base network and budget."""
    tests = []
    for base, share in dict.fromkeys((row["base"], row["share"]) for row in rows):
        here = [row for row in rows if (row["base"], row["share"]) == (base, share)]
        ours = best_arm(here, OURS, share)
        if ours is None:
            continue
        for family in dict.fromkeys(arm.family for arm in ARMS if arm.family != OURS):
            if other := best_arm(here, family, share):
                pairs = paired(by_seed(here, ours, share), by_seed(here, other, share))
                differences = [a - b for a, b in zip(*pairs, strict=True)]
                if differences:
                    facts = {"base": base, "share": share, "ours": ours, "other": other}
                    tests.append({**facts, "differences": differences, "p": p_of(*pairs)})
    return tests
