"""Read budgets as people write them: 300M, 1.5G, 50%, 12ms, 4MB; of one measure, or of several at once."""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from autoslim_cli.errors import UsageError
from autoslim_cli.files.measures import MEASURES, option, written
from autoslim_cli.files.names import budget_label

Cost = Mapping[str, float]
"""What channels cost, by measure."""


_HALF_A_NUMBER = re.compile(r"[0-9]{1,3}")
LEAST_SHARE = 1e-3
"""The share of the base network's cost below which a number of three digits in a list is taken for a slip."""

LEAST_SAVING = 1e-3
"""What a step must save of an uneven measure, as a share of its bound, to count as saving at all."""


@dataclass(frozen=True)
class Bound:
    """An upper bound on one measure, as it was written."""

    measure: str
    text: str
    limit: float

    def __str__(self) -> str:
        return f"{self.measure}<={self.text}"

    def saves(self, before: Cost, after: Cost) -> bool:
        """Tell whether a change saves of the measure: more than noise, of one that is measured in steps."""
        least = LEAST_SAVING * self.limit if MEASURES[self.measure].uneven else 0.0
        return before[self.measure] - after[self.measure] > least


@dataclass(frozen=True)
class Budget:
    """Upper bounds that must all hold; `label` names its files.

    `device` says whose latency is bounded, where several devices' tables are used.
    """

    bounds: tuple[Bound, ...]
    device: str = ""

    @property
    def label(self) -> str:
        """Return the text fit for a file name: 300M, params-2M, 300M-params-2M, latency-12ms-pixel."""
        return budget_label({bound.measure: bound.text for bound in self.bounds}, self.device)

    def holds(self, cost: Cost) -> bool:
        """Tell whether every bound holds."""
        return all(cost[bound.measure] <= bound.limit for bound in self.bounds)

    def binding(self, cost: Cost) -> Bound:
        """Return the bound that a cost comes nearest to."""
        return max(self.bounds, key=lambda bound: cost[bound.measure] / bound.limit)

    def used(self, cost: Cost) -> float:
        """Return the share of the budget that a cost uses, of several bounds the most; above 1 it does not hold."""
        bound = self.binding(cost)
        return cost[bound.measure] / bound.limit

    def open_bounds(self, cost: Cost) -> tuple[Bound, ...]:
        """Return the bounds that do not hold yet; all of them, if every one holds."""
        return tuple(bound for bound in self.bounds if cost[bound.measure] > bound.limit) or self.bounds

    def saving(self, before: Cost, after: Cost) -> float:
        """Return what a change saves of what is missing to a bound, as a share of the bound: of several, the most.

        What it saves beyond the bound counts for nothing.
        """
        missing = {bound: before[bound.measure] - bound.limit for bound in self.open_bounds(before)}
        saved = {bound: before[bound.measure] - after[bound.measure] for bound in missing}
        return max(min(saved[bound], missing[bound]) / bound.limit for bound in missing)

    def shrinkage(self, before: Cost, after: Cost) -> float:
        """Return what a change saves of a cost that is bounded and over its bound, as a share of it: the most."""
        return max(1 - after[bound.measure] / before[bound.measure] for bound in self.open_bounds(before))

    def saves(self, before: Cost, after: Cost) -> bool:
        """Tell whether a change brings a bound nearer that does not hold yet."""
        return any(bound.saves(before, after) for bound in self.open_bounds(before))

    def __str__(self) -> str:
        return " and ".join(map(str, self.bounds))


def parse(measure: str, text: str, base: float) -> Bound:
    """Read one bound; a percentage is of `base`, the cost of the base network.

    Raises UsageError naming the option and the text.
    """
    kind = MEASURES[measure]
    read = kind.read(text)
    if read is None:
        raise UsageError(
            f"{option(measure)} {text!r} is not a budget: write {kind.example} or 50% (of the base network)"
        )
    number, unit = read
    exact = Decimal(str(base)) * number / 100 if unit == "%" else number * Decimal(str(kind.units[unit]))
    return Bound(measure, written(number, unit), float(exact) if measure == "latency" else int(exact))


def parse_many(texts: Mapping[str, str], base: Cost) -> list[Budget]:
    """Read budgets separated by commas, by measure, largest first, each once.

    Bounds on several measures pair up, largest with largest; a single bound goes with each of the other measure's.
    Raises UsageError for a text that is no budget, or lists that do not pair up.
    """
    lists = {measure: _bounds(measure, text, base[measure]) for measure, text in texts.items()}
    longest = max(lists.values(), key=len)
    for bounds in lists.values():
        if len(bounds) not in (1, len(longest)):
            raise UsageError(
                f"{len(longest)} bounds with {option(longest[0].measure)}, but {len(bounds)} with "
                f"{option(bounds[0].measure)}: "
                "write as many of each, or one that goes with all"
            )
    columns = [lists[m] * (len(longest) // len(lists[m])) for m in MEASURES if m in lists]
    return list({tuple(b.limit for b in bounds): Budget(bounds) for bounds in zip(*columns, strict=True)}.values())


def _bounds(measure: str, text: str, base: float) -> list[Bound]:
    """Read the bounds on one measure, largest first."""
    parts = [part.strip() for part in text.split(",")]
    if not any(parts):
        example = MEASURES[measure].example.split(",", maxsplit=1)[0]
        raise UsageError(f"{option(measure)} {text!r} holds no budget: write {example}, or several with commas between")
    if not all(parts):
        whole = ",".join(filter(None, parts))
        raise UsageError(f"{option(measure)} {text!r} has nothing between two commas, or at an end: write {whole}")
    for place, part in enumerate(parts[:-1]):
        if _HALF_A_NUMBER.fullmatch(part) and ("" not in MEASURES[measure].units or int(part) < LEAST_SHARE * base):
            raise UsageError(
                f"{option(measure)} {text!r}: commas lie between budgets, and {part} alone is hardly one; did you mean "
                f"{_meant(parts[place:])}?"
            )
    return sorted((parse(measure, part, base) for part in parts), key=lambda bound: -bound.limit)


def _meant(parts: list[str]) -> str:
    """Say what may have been meant by a number without a unit that a comma ends: 1,5G or 1,234,567."""
    part, following = parts[:2]
    unit = following.lstrip("0123456789. ")
    if not unit:
        return "".join(itertools.takewhile(str.isdigit, parts))
    return f"{part}.{following} or {part}{unit},{following}"


def short(count: int | float) -> str:
    """Write a count for people: 300.8M, 5.70G, 1234."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= size:
            return f"{count / size:.4g}{unit}"
    return f"{count:g}"
