"""Keep working when nobody reads what is printed: a closed pipe, a lost terminal, a stream that the caller closed."""

import errno
import io
import os
import sys
from typing import TextIO


def steady_streams() -> None:
    """Open what the caller closed (`>&-`) onto nothing, and let no reader that goes away end the work.

    Results and progress that nobody can read any more are lost: `| head` has what it wanted, a training whose terminal
    is gone goes on or saves. A full disk under stdout stays an error, since the results were to be kept.
    """
    _open_closed()
    sys.stdout = _steady(sys.stdout, _gone(sys.stdout))
    sys.stderr = _steady(sys.stderr, None)


class SteadyText(io.TextIOWrapper):
    """A stream of text that goes nowhere once a write has failed for one of some reasons; None: for any reason."""

    lost: frozenset[int] | None = None

    def write(self, text: str) -> int:
        """Write text, and say how many characters."""
        try:
            return super().write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Write what is still kept back."""
        try:
            super().flush()
        except OSError as error:
            self._lose(error)
            super().flush()

    def _lose(self, error: OSError) -> None:
        """Let this and all that follows go nowhere, or raise the error, once."""
        if self.lost is not None and error.errno not in self.lost:
            self.lost = None
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def _gone(stream: TextIO) -> frozenset[int]:
    """Return the errors that say that the reader of a stream has gone; of a file EIO says that its disk fails."""
    return frozenset({errno.EPIPE, errno.EIO} if stream.isatty() else {errno.EPIPE})


def _steady(stream: TextIO, lost: frozenset[int] | None) -> TextIO:
    """Return a stream of text that writes where another does."""
    steady = SteadyText(
        io.BufferedWriter(io.FileIO(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        # A name in letters that the reader's encoding lacks ends no command.
        errors="backslashreplace" if stream.errors == "strict" else stream.errors,
        newline="\n",
        line_buffering=stream is sys.stderr or stream.isatty(),
    )
    steady.lost = lost
    return steady


def _open_closed() -> None:
    """Open closed streams onto nothing, before another file gets their numbers and what is printed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
