"""Print the tables of docs/tasks-shown.md from the rows."""

import statistics
from collections.abc import Iterable, Sequence

from plan import FINE_TUNED, SHARES, TASKS, Chosen, Row, rows_of


def rows(chosen: Chosen) -> list[Row]:
    """Return the rows that are there."""
    return [row for task in chosen.tasks for row in rows_of(chosen.file(task))]


def report(some: Sequence[Row]) -> None:
    """Print tables for each task: networks trained from scratch, fine-tuned, and sub-networks of the supernet."""
    for task in dict.fromkeys(row["task"] for row in some):
        here = [row for row in some if row["task"] == task]
        print(f"\n{task}: test {TASKS[task].label}\n")
        print_trained(task, here)
        if TASKS[task].fine_tuned:
            print("\nfine-tuned from the supernet's weights:\n")
            print_trained(task, here, FINE_TUNED)
        if TASKS[task].spectrum:
            print_spectrum(task, here)


def print_trained(task: str, some: Sequence[Row], how: str = "") -> None:
    """Print what was trained: searched, one width, their difference by seed, the base network, which is from scratch.

    `how` is what the names of networks end in that did not start from scratch.
    """
    print("| FLOPs | searched | one width | searched less one width, by seed | FLOPs used | n |")
    print("| --- " * 6 + "|")
    for share in SHARES:
        names = [network + how for network in ("searched", "one width")]
        found, even = (by_seed(task, some, name, share) for name in names)
        both = [found[seed] - even[seed] for seed in sorted(found) if seed in even]
        used = [row["used"] for row in some if row.get("share") == share and row["network"] in names]
        if both:
            each = ", ".join(f"{one:+.2f}" for one in both)
            filled = f"{min(used):.1%} to {max(used):.1%}"
            print(
                f"| {share} % | {spread(found.values())} | {spread(even.values())} "
                f"| {spread(both, sign='+')} ({each}) | {filled} | {len(both)} |"
            )
    if base := by_seed(task, some, "base"):
        print(f"| 100 %, the base network | | {spread(base.values())} | | | {len(base)} |")
    for row in some:
        if row["network"] == "bicubic":
            print(f"| bicubic enlargement | | {row[TASKS[task].score] * TASKS[task].times:.2f} | | | |")


def print_spectrum(task: str, some: Sequence[Row]) -> None:
    """Print what one supernet gives without retraining."""
    print("\n| sub-network of the supernet | FLOPs, millions | score | n |")
    print("| --- " * 4 + "|")
    kinds = [("supernet", "width", f"width {row['width']:g}", row["width"]) for row in some if "width" in row]
    kinds += [("searched in the supernet", "share", f"searched, {share} %", share) for share in SHARES]
    for network, key, name, value in dict.fromkeys(kinds):
        of = [row for row in some if row["network"] == network and row[key] == value]
        if of:
            scores = spread(row[TASKS[task].score] * TASKS[task].times for row in of)
            print(f"| {name} | {statistics.mean(row['flops'] for row in of) / 1e6:.2f} | {scores} | {len(of)} |")


def by_seed(task: str, some: Sequence[Row], network: str, share: int | None = None) -> dict[int, float]:
    """Return scores as they are shown, by seed."""
    chosen = [row for row in some if row["network"] == network and row.get("share") == share]
    return {row["seed"]: row[TASKS[task].score] * TASKS[task].times for row in chosen}


def spread(values: Iterable[float], sign: str = "") -> str:
    """Write a mean, and the deviation where there are several."""
    some = list(values)
    deviation = f" ± {statistics.stdev(some):.2f}" if len(some) > 1 else ""
    return f"{statistics.mean(some):{sign}.2f}{deviation}"
