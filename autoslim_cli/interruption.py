"""End work when that is asked for: by Ctrl-C, by SIGTERM, or because the terminal is lost (SIGHUP)."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from autoslim_cli.launch import launched

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def asked_to_end(answer: Callable[[int], None]) -> Iterator[None]:
    """Call `answer` with the number of every signal that asks for an end, in place of what they would do.

    A SIGHUP that is ignored stays so, since `nohup` asks for that. Only the main thread can be told of signals.
    """

    def note(number: int, _frame: FrameType | None) -> None:
        answer(number)

    with _handled_by(note):
        yield


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let every such signal end the process at once, as it ends a program that has no answer.

    While a library waits for something, Python hears of no signal.
    """
    with _handled_by(signal.SIG_DFL):
        yield


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> Iterator[None]:
    """Have signals handled by something else; all but a SIGHUP that is ignored."""
    here = threading.current_thread() is threading.main_thread()
    numbers = [n for n in SIGNALS if here and not (n != signal.SIGINT and signal.getsignal(n) is signal.SIG_IGN)]
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


@contextmanager
def interrupted_alike() -> Iterator[None]:
    """Raise KeyboardInterrupt at every such signal; in a job of several processes at the first alone.

    There the terminal sends a signal to all, and torchrun passes it on once more.
    """
    received: list[int] = []

    def answer(number: int) -> None:
        received.append(number)
        if len(received) == 1 or launched().size == 1:
            raise KeyboardInterrupt

    with asked_to_end(answer):
        yield


@contextmanager
def saying_what_is_kept(say: Callable[[str], None], kept: str) -> Iterator[None]:
    """Say what an interrupted command leaves for `--resume`."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"stopped: {kept}; the same command with --resume continues")
        raise
