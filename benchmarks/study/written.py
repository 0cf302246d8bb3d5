"""Write what tables hold."""

import statistics
from collections.abc import Sequence


def spread(values: Sequence[float], digits: int = 3, scale: float = 1.0, *, sign: bool = False) -> str:
    """Write a mean and its deviation; `sign`: of differences."""
    if not values:
        return ""
    deviation = f" ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    mean = scale * statistics.mean(values)
    return (f"{mean:+.{digits}f}" if sign else f"{mean:.{digits}f}") + deviation


def head(*cells: str) -> None:
    """Print the head of a table."""
    print(f"\n| {' | '.join(cells)} |\n{'| --- ' * len(cells)}|")
