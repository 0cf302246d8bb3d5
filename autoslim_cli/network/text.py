"""Write what exceptions say in one line."""

from autoslim_cli.errors import AutoslimError


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text, or its type."""
    # Our own errors say all of theirs in one line, with what torch.fx has added.
    text = Exception.__str__(error) if isinstance(error, AutoslimError) else str(error)
    return (text.strip().splitlines() or [type(error).__name__])[0]
