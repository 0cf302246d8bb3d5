"""Read budgets as people write them: 300M, 1.5G, 50%."""

import re
from dataclasses import dataclass

from autoslim_cli.errors import UsageError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG%]?)", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """An upper bound on FLOPs, as it was written; `label` names its files."""

    text: str
    flops: int

    @property
    def label(self) -> str:
        """Return the text fit for a file name."""
        return self.text.replace("%", "pct")

    def __str__(self) -> str:
        return f"flops<={self.text}"


def parse(text: str, base: int) -> Budget:
    """Read one budget; a percentage is of `base`, the cost of the base network.

    Raises UsageError naming the text.
    """
    match = _NUMBER.fullmatch(text.strip())
    if not match or float(match[1]) == 0:
        raise UsageError(f"{text!r} is not a budget: write 300M, 1.5G, 250K, 12345678 or 50% (of the base network)")
    number, unit = match[1], match[2].upper()
    if unit == "%":
        return Budget(f"{_short(float(number))}%", int(base * float(number) / 100))
    return Budget(f"{_short(float(number))}{unit}", round(float(number) * _UNITS[unit]))


def parse_many(text: str, base: int) -> list[Budget]:
    """Read budgets separated by commas, largest first, each once."""
    budgets = {budget.flops: budget for budget in (parse(part, base) for part in text.split(",") if part.strip())}
    if not budgets:
        raise UsageError(f"{text!r} holds no budget: write 300M, or several as 300M,200M")
    return [budgets[flops] for flops in sorted(budgets, reverse=True)]


def short(count: int | float) -> str:
    """Write a count for people: 300.8M, 5.70G, 1234."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= size:
            return f"{count / size:.4g}{unit}"
    return f"{count:g}"


def _short(number: float) -> str:
    """Write a number without a needless fraction."""
    return f"{number:g}" if number < 1e6 else f"{number:.0f}"
