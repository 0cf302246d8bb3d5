"""Show progress on stderr: a bar on a terminal, a line per event elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

REFRESH = 0.2
"""Seconds between two looks at the words beside a bar: on a GPU a look waits for the work in flight."""


class Bar(Protocol):
    """Something that counts."""

    def __call__(self, done: int, words: Callable[[], str]) -> None:
        """Say how much is done; `words` tells what there is to know about it, and is called only when it shows."""
        ...


class Reporter:
    """Tell the person at the terminal what happens. stdout is for results: all of this goes to stderr."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True, quiet=quiet)
        self.quiet = quiet

    def say(self, text: str) -> None:
        """Print one line."""
        self.console.print(escape(text))

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        """Show a bar with the time that is left, on a terminal."""
        if self.quiet or not self.console.is_terminal:
            yield lambda done, words: None
            return
        columns: list[Any] = [
            *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()),
            *(TextColumn("eta"), TimeRemainingColumn(), TextColumn("{task.fields[text]}")),
        ]
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(escape(title), total=total, text="")
            shown = 0.0

            def show(done: int, words: Callable[[], str]) -> None:
                nonlocal shown
                if done == total or time.monotonic() - shown > REFRESH:
                    progress.update(task, completed=done, text=escape(words()))
                    shown = time.monotonic()

            yield show
