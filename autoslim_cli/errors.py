"""Name the failures that a user can meet, each with its exit code."""

from collections.abc import Iterator
from contextlib import contextmanager


class AutoslimError(Exception):
    """Fail while running (exit 1). The message is one line: what, where, and what to do next."""

    exit_code = 1


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


_MEMORY_RAN_OUT = (
    "out of memory",
    "can't allocate memory",
    "Failed to allocate memory",
    "Invalid buffer size",
    "Storage size calculation overflowed",
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
