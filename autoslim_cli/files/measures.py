"""Say what of a network may be bounded, and how people write bounds: 300M, 1.5G, 50%, 12ms, 4MB."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*|%)", re.IGNORECASE)
_LONGEST = 24
"""Characters of a number: the largest cost of any network has fewer, and files are named after it."""


@dataclass(frozen=True)
class Measure:
    """Something that may be bounded: its word, how people write it, and whether steps may save nothing of it."""

    word: str
    units: Mapping[str, float]
    example: str
    uneven: bool = False

    def show(self, value: float) -> str:
        """Write a value for people: 300.8M, 12.4ms, 3.81MB."""
        for unit, size in sorted(self.units.items(), key=lambda pair: -pair[1]):
            if value >= size and unit:
                return f"{value / size:.4g}{unit}"
        return f"{value:.4g}"

    def read(self, text: str) -> tuple[Decimal, str] | None:
        """Return the number and the unit of a bound as people write it, `%` among units; None if it is none."""
        match = _NUMBER.fullmatch(text.strip())
        units = {unit.lower(): unit for unit in ("%", *self.units)}
        if not match or len(match[1]) > _LONGEST or float(match[1]) == 0 or match[2].lower() not in units:
            return None
        return Decimal(match[1]).normalize(), units[match[2].lower()]


def written(number: Decimal, unit: str) -> str:
    """Write a bound: of all that people write for it the one text that files are named after."""
    return f"{number:f}{unit}"


_COUNTS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
MEASURES = {
    "flops": Measure("FLOPs", _COUNTS, "300M, 1.5G, 250K, 12345678"),
    "params": Measure("parameters", _COUNTS, "2M, 250K, 12345678"),
    "activation_memory": Measure(
        "of live activations", {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}, "4MB, 512KB", uneven=True
    ),
    "latency": Measure("predicted latency", {"ms": 1.0, "us": 1e-3, "s": 1e3}, "12ms, 850us", uneven=True),
}
"""What may be bounded, in the order of file names; an option of the same name takes each. Latency is in ms."""


def option(measure: str) -> str:
    """Return the option that bounds a measure."""
    return "--" + measure.replace("_", "-")
