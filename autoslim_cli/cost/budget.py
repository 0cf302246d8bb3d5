"""Read budgets as people write them: 300M, 1.5G, 50%; of FLOPs, of parameters, or of both."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from autoslim_cli.errors import UsageError

Cost = Mapping[str, int]
"""What channels cost, by measure."""

MEASURES = {"flops": "FLOPs", "params": "parameters"}
"""What may be bounded, in the order of file names, and its word; an option of the same name takes each."""

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG%]?)", re.IGNORECASE)


@dataclass(frozen=True)
class Bound:
    """An upper bound on one measure, as it was written."""

    measure: str
    text: str
    limit: int

    def __str__(self) -> str:
        return f"{self.measure}<={self.text}"


@dataclass(frozen=True)
class Budget:
    """Upper bounds that must all hold; `label` names its files."""

    bounds: tuple[Bound, ...]

    @property
    def label(self) -> str:
        """Return the text fit for a file name: 300M, params-2M, or 300M-params-2M."""
        parts = [bound.text if bound.measure == "flops" else f"{bound.measure}-{bound.text}" for bound in self.bounds]
        return "-".join(parts).replace("%", "pct")

    def holds(self, cost: Cost) -> bool:
        """Tell whether every bound holds."""
        return all(cost[bound.measure] <= bound.limit for bound in self.bounds)

    def binding(self, cost: Cost) -> Bound:
        """Return the bound that a cost comes nearest to."""
        return max(self.bounds, key=lambda bound: cost[bound.measure] / bound.limit)

    def saving(self, before: Cost, after: Cost) -> float:
        """Return what a change saves of a bound that does not hold yet, as a share of it: of several, the most."""
        open_bounds = [bound for bound in self.bounds if before[bound.measure] > bound.limit] or self.bounds
        return max((before[bound.measure] - after[bound.measure]) / bound.limit for bound in open_bounds)

    def __str__(self) -> str:
        return " and ".join(map(str, self.bounds))


def parse(measure: str, text: str, base: int) -> Bound:
    """Read one bound; a percentage is of `base`, the cost of the base network.

    Raises UsageError naming the option and the text.
    """
    match = _NUMBER.fullmatch(text.strip())
    if not match or float(match[1]) == 0:
        raise UsageError(
            f"--{measure} {text!r} is not a budget: write 300M, 1.5G, 250K, 12345678 or 50% (of the base network)"
        )
    number, unit = Decimal(match[1]).normalize(), match[2].upper()
    limit = base * number / 100 if unit == "%" else (number * _UNITS[unit]).to_integral_value()
    return Bound(measure, f"{number:f}{unit}", int(limit))


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
                f"{len(longest)} bounds on {longest[0].measure}, but {len(bounds)} on {bounds[0].measure}: "
                "write as many of each, or one that goes with all"
            )
    columns = [lists[m] * (len(longest) // len(lists[m])) for m in MEASURES if m in lists]
    return list({tuple(b.limit for b in bounds): Budget(bounds) for bounds in zip(*columns, strict=True)}.values())


def _bounds(measure: str, text: str, base: int) -> list[Bound]:
    """Read the bounds on one measure, largest first."""
    bounds = [parse(measure, part, base) for part in text.split(",") if part.strip()]
    if not bounds:
        raise UsageError(f"--{measure} {text!r} holds no budget: write 300M, or several as 300M,200M")
    return sorted(bounds, key=lambda bound: -bound.limit)


def short(count: int | float) -> str:
    """Write a count for people: 300.8M, 5.70G, 1234."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= size:
            return f"{count / size:.4g}{unit}"
    return f"{count:g}"
