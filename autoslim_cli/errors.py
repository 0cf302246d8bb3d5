"""Name the failures that a user can meet, each with its exit code."""

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LONGEST_WORD = 250
LONGEST_LINE = 1200
"""Characters that a person still reads: of a path or another word, and of a message."""


def legible(text: str) -> str:
    """Return text as one line that a terminal shows as it is: overlong words and lines cut, control characters escaped.

    What a message quotes is the user's, or a file's: it may hold anything.
    """
    words = (_cut(word, LONGEST_WORD, end=50) for word in re.sub(r"\s*[\n\r\t]\s*", " ", text.strip()).split(" "))
    line = _cut(" ".join(words), LONGEST_LINE, end=400)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def _cut(text: str, most: int, end: int) -> str:
    """Return a text of at most so many characters: of a longer one the beginning and the end."""
    return text if len(text) <= most else f"{text[: most - end - 3]}...{text[-end:]}"


class AutoslimError(Exception):
    """Fail while running (exit 1). The message is one line: what, where, and what to do next."""

    exit_code = 1

    def __str__(self) -> str:
        return legible(super().__str__())


class UsageError(AutoslimError):
    """Refuse wrong usage or a wrong recipe (exit 2)."""

    exit_code = 2


class BudgetError(AutoslimError):
    """Refuse a budget out of reach (exit 3). The message holds the reachable range."""

    exit_code = 3


class ArtifactError(AutoslimError):
    """Report an artifact that is missing, damaged, or made from something else (exit 4)."""

    exit_code = 4


class LogError(ArtifactError):
    """Refuse a log that a search cannot go on from (exit 4): it is damaged."""


class StaleLogError(LogError):
    """Refuse a log that holds scores of something else (exit 4)."""


def expected(what: str, given: object, kind: type[Any] | tuple[type[Any], ...], named: str) -> None:
    """Raise UsageError if an argument is none of a kind."""
    if not isinstance(given, kind):
        hint = "; call it, if it makes one" if inspect.isroutine(given) or inspect.isclass(given) else ""
        raise UsageError(f"{what}: {named} was expected, not {type(given).__name__}{hint}")


def install(extra: str) -> str:
    """Say how what an extra needs is installed."""
    return f"in autoslim's checkout: pip install '.[{extra}]'"


_MEMORY_RAN_OUT = (
    "out of memory",
    "can't allocate memory",
    "Failed to allocate memory",
    "Invalid buffer size",
    "Storage size calculation overflowed",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that the memory of the machine or of its GPU does not suffice."""
    said = isinstance(error, RuntimeError) and any(words in str(error) for words in _MEMORY_RAN_OUT)
    return said or isinstance(error, MemoryError)


@contextmanager
def advice_on_memory(advice: str) -> Iterator[None]:
    """Turn running out of memory into one line that says what to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise AutoslimError(f"out of memory; {advice}") from None


@contextmanager
def advice_on_few_values() -> Iterator[None]:
    """Turn a batch that is too small for BN's own statistics into one line that says how to have larger ones."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UsageError(
            "a batch of one image is too small for BN, which takes its statistics from it: take larger ones "
            "(drop_last=True of a DataLoader leaves out a small last one; micro_batch makes small ones, too)"
        ) from None
