"""Help with a name that is unknown: the known ones that it is near to, or else what there is."""

import difflib
from collections.abc import Collection, Iterable

ALIKE = 0.6
"""How alike names are, of 1, for one to be meant by the other: a slip or two in a word, not another word."""

MANY = 8
"""Names that one line gives."""


def near(name: str, known: Iterable[str], most: int = 1, alike: float = ALIKE) -> list[str]:
    """Return the known names that one is near to, the nearest first; capitals do not count."""
    spelled = {other.lower(): other for other in known}
    return [spelled[other] for other in difflib.get_close_matches(name.lower(), spelled, n=most, cutoff=alike)]


def listed(names: Collection[str], most: int = MANY) -> str:
    """Name the first of some names, and say how many more there are."""
    first = ", ".join(list(names)[:most])
    return first + (f" and {len(names) - most} more" if len(names) > most else "")


def hint(name: str, known: Collection[str], most: int = 1) -> str:
    """Return `did you mean a or b?`, or where none is near, `there are a, b, c and 40 more`."""
    if found := near(name, known, most):
        return f"did you mean {' or '.join(found)}?"
    return f"there {'are' if len(known) > 1 else 'is'} {listed(known)}" if known else "there is none"
