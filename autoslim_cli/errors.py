"""Name the failures that a user can meet, each with its exit code."""


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
