"""Print results on stdout: JSON, tables, a network's figures."""

import json
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from autoslim_cli.files.metric import Metric


_KEPT: list[TextIO] = []
"""Stdout, while what else is printed goes to stderr."""


def json_alone(wanted: bool) -> bool:
    """Keep stdout for the JSON of a command that was asked for it: what a recipe's own code prints goes to stderr."""
    if wanted and not _KEPT:
        _KEPT.append(sys.stdout)
        sys.stdout = sys.stderr
    return wanted


@contextmanager
def giving_stdout_back() -> Iterator[None]:
    """Give stdout back at the end of a command that kept it."""
    try:
        yield
    finally:
        if _KEPT:
            sys.stdout = _KEPT.pop()


def print_json(value: object) -> None:
    """Print one JSON object on stdout, letters that stdout cannot write escaped."""
    stream = _KEPT[-1] if _KEPT else sys.stdout
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value)
    print(text, file=stream)


def print_table(
    columns: list[str],
    rows: Iterable[Iterable[str]],
    *,
    title: str | None = None,
    goes: Sequence[str] = (),
    names: Sequence[str] = (),
    prose: bool = False,
) -> None:
    """Print a table on stdout; the first column and `names` are text, the last is if it is `prose`, the others figures.

    In a pipe or a file every row is whole, on one line. A terminal's width is kept (COLUMNS overrides it): columns of
    `goes` go first, the first one first, and are named below; then names are shortened; figures never are.
    """
    from rich.cells import cell_len

    from autoslim_cli.cli.tables import Table, laid_out

    width = terminal_width()
    cells = [[" ".join(cell.split("\n")) for cell in row] for row in rows]
    lines, gone = laid_out(Table(columns, cells, goes, names, prose), width, cell_len)
    if title:
        _print_text(title, width)
    print(*map(_in_its_letters, lines), sep="\n")
    if gone:
        _print_text(f"not shown here: {', '.join(gone)}; a wider terminal or --json has all", width)


def terminal_width() -> int | None:
    """Return the cells in a line of the terminal that stdout goes to, if it goes to one."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _print_text(text: str, width: int | None) -> None:
    """Print a sentence, in lines of a terminal's width."""
    print(text if width is None else textwrap.fill(text, max(width, 1), break_long_words=False))


def _in_its_letters(line: str) -> str:
    """Return a line in characters that stdout can write."""
    utf = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    return line if utf else line.replace("─", "-").replace("…", "~")


def print_markdown(columns: list[str], rows: Iterable[Iterable[str]], *, title: str | None = None) -> None:
    """Print a table as Markdown; the first column is text, the others are figures."""
    if title:
        print(f"\n{title}:\n")
    aligned = ["---", *["---:"] * (len(columns) - 1)]
    for row in (columns, aligned, *rows):
        print(f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in row)} |")


def figures(row: dict[str, Any], metric: "Metric") -> tuple[str, ...]:
    """Write FLOPs, parameters, loss and score."""
    return (f"{row['flops']:,}", f"{row['params']:,}", f"{row['loss']:.4f}", metric.show(row[metric.name]))


def print_test(rows: list[dict[str, Any]], metric: "Metric") -> None:
    """Print figures on the test set."""
    columns = ["network", "FLOPs", "params", "test loss", f"test {metric.title}"]
    print_table(columns, ((row["path"], *figures(row, metric)) for row in rows), goes=["params", "test loss"])
