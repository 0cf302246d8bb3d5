"""Show progress on stderr: a bar on a terminal, a line at least every half minute elsewhere."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.spinner import Spinner
from rich.text import Text

from autoslim_cli.errors import legible

REFRESH = 0.2
"""Seconds between two looks at the text beside a bar: on a GPU a look waits for the work in flight."""
LINE_EVERY = 25.0
"""Seconds without a line after which one is due, where there is no terminal."""
LOOK_EVERY = 1.0
"""Seconds between two looks whether a line is due, while the work itself reports nothing."""
WINDOW = 20
"""Lines over which a rate is taken: what was done quickly, as from a log, is soon left behind."""


class Bar(Protocol):
    """Something that counts."""

    def __call__(self, done: int, text: Callable[[], str]) -> None:
        """Say how much is done; `text` tells what there is to know about it, and is called only when it shows."""
        ...

    def passed(self, line: str) -> None:
        """Say that a stretch is done, as an epoch: a line of its own, or what a terminal's bar says until the next."""
        ...


class Talk(IntEnum):
    """How much a person is told; each holds what those before it hold."""

    NOTHING = 0
    WARNINGS = 1
    PROGRESS = 2
    DETAILS = 3


class Reporter:
    """Tell the person at the terminal what happens. stdout is for results: all of this goes to stderr.

    With `tell`, lines go to it instead: each once, and nothing is drawn.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        talk: Talk = Talk.PROGRESS,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[str], object] | None = None,
    ) -> None:
        self.tell = tell
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self.talk, self.clock = talk, clock
        self.warnings: set[str] = set()

    def say(self, text: str) -> None:
        """Print one line."""
        self._print(text, Talk.PROGRESS)

    def warn(self, text: str) -> None:
        """Print one line that nobody should miss, who wants to be told little; what was said once is not said again."""
        if text in self.warnings:
            return
        self.warnings.add(text)
        self._print(f"warning: {text}", Talk.WARNINGS)

    def detail(self, text: Callable[[], str]) -> None:
        """Print one line for who wants to know all; it is called only then."""
        if self.talk >= Talk.DETAILS:
            self._print(text(), Talk.DETAILS)

    def _print(self, text: str, least: Talk) -> None:
        if self.talk >= least:
            self.tell(legible(text)) if self.tell else self.console.print(escape(legible(text)))

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """Count to `total`: what is done, how fast, and what remains."""
        if self.talk < Talk.PROGRESS:
            yield Silence()
        elif self._draws:
            with _drawn(self.console, title, total, self.clock) as drawn:
                yield drawn
        else:
            lines = Lines(title, total, self.say, self.clock)
            with repeated(lines.tick, LOOK_EVERY):
                yield lines

    @contextmanager
    def doing(self, title: str) -> Iterator[None]:
        """Tell of work that counts nothing, as opening images: by a spinner, elsewhere in lines."""
        if self.talk < Talk.PROGRESS:
            yield
        elif self._draws:
            with Live(Spinner("dots", Text(title)), console=self.console, transient=True):  # drawn at once
                yield
        else:
            if self.console.is_terminal and not self.tell:  # a person waits, and a line cannot be taken back
                self.say(title)
            lines = Lines(title, 0, self.say, self.clock)
            with repeated(lines.tick, LOOK_EVERY):
                yield

    @property
    def _draws(self) -> bool:
        """Tell whether the console can draw over itself."""
        return not self.tell and self.console.is_terminal and not self.console.is_dumb_terminal


class Silence:
    """Count for nobody."""

    def __call__(self, done: int, text: Callable[[], str]) -> None:
        """Say nothing."""

    def passed(self, line: str) -> None:
        """Say nothing."""


class Lines:
    """Count in lines: one whenever none was printed for `LINE_EVERY` seconds, and one for each stretch that is done."""

    def __init__(self, title: str, total: int, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self.title, self.total, self.say, self.clock = title, total, say, clock
        self.started = self.said_at = clock()
        self.done: int | None = None
        self.text: Callable[[], str] = str
        self.samples: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self.lock = threading.Lock()

    def __call__(self, done: int, text: Callable[[], str]) -> None:
        """Note what is done, and print a line if one is due."""
        with self.lock:
            if self.done is None:  # what a resumed command found done took it no time
                self.samples.append((self.started, done - 1))
            self.done, self.text = done, text
        self.tick()

    def passed(self, line: str) -> None:
        """Print the line of a stretch that is done, and what remains."""
        with self.lock:
            self._say(f"{line}  {self._remaining()}")

    def tick(self) -> None:
        """Print a line if one is due; during quiet work, as an evaluation, nothing but this is called."""
        with self.lock:
            if self.clock() - self.said_at >= LINE_EVERY:
                done = f"{self.done or 0}/{self.total}  " if self.total else ""
                self._say(f"{self.title}: {done}{self._remaining()}  {self.text()}")

    def _say(self, line: str) -> None:
        self.say(line.rstrip())
        self.said_at = self.clock()
        if self.done is not None:
            self.samples.append((self.said_at, self.done))

    def _remaining(self) -> str:
        """Return the rate and the time that is left; the time so far, as long as there is no rate."""
        now = self.clock()
        since, before = self.samples[0] if self.samples else (now, 0)
        if self.done is None or self.done <= before or now <= since:
            return f"{duration(now - self.started)} so far"
        rate = (self.done - before) / (now - since)
        pace = f"{rate:.3g}/s" if rate >= 1 else f"{1 / rate:.3g} s each"
        return f"{pace}, {duration((self.total - self.done) / rate)} left"


class Drawn:
    """Count in a bar on a terminal, with what is known and the latest stretch below it."""

    def __init__(self, progress: Progress, title: str, total: int, clock: Callable[[], float]) -> None:
        self.progress, self.total, self.clock = progress, total, clock
        self.task = progress.add_task(escape(title), total=total)
        self.latest, self.stretch = (Text("", no_wrap=True, overflow="ellipsis") for _ in range(2))
        self.shown_at: float | None = None

    def __call__(self, done: int, text: Callable[[], str]) -> None:
        """Move the bar, if the last look is a while ago."""
        now = self.clock()
        if self.shown_at is None:  # what a resumed command found done says nothing of its rate
            self.progress.reset(self.task, completed=done)
        if self.shown_at is None or done == self.total or now - self.shown_at > REFRESH:
            self.progress.update(self.task, completed=done)
            self.latest.plain = text()
            self.shown_at = now

    def passed(self, line: str) -> None:
        """Show the line until the next one."""
        self.stretch.plain = line

    def __rich__(self) -> Group:
        """Draw the bar, and below it what is known: beside it, a narrow terminal would cut the figures of both."""
        return Group(self.progress, *(line for line in (self.latest, self.stretch) if line.plain))


@contextmanager
def _drawn(console: Console, title: str, total: int, clock: Callable[[], float]) -> Iterator[Drawn]:
    """Draw a bar that goes when it ends; the last stretch stays as the one line that sums it up."""
    progress = Progress(
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()),
        *(TextColumn("eta"), TimeRemainingColumn()),
        console=console,
    )
    drawn = Drawn(progress, title, total, clock)
    try:
        with Live(drawn, console=console, transient=True):
            yield drawn
    finally:
        if drawn.stretch.plain:
            console.print(escape(drawn.stretch.plain))


@contextmanager
def repeated(look: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call `look` every so many seconds from a thread of its own."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(seconds):
            look()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def duration(seconds: float) -> str:
    """Write a duration for people: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
