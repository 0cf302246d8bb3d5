"""Print results on stdout: JSON, tables, a network's figures."""

import json
from collections.abc import Iterable
from typing import Any


def print_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    print(json.dumps(value, ensure_ascii=False))


def print_table(columns: list[str], rows: Iterable[Iterable[str]], *, title: str | None = None) -> None:
    """Print a table on stdout; the first column is text, the others are figures."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", overflow="fold", no_wrap=place > 0)
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    console.print(table)


def print_markdown(columns: list[str], rows: Iterable[Iterable[str]], *, title: str | None = None) -> None:
    """Print a table as Markdown; the first column is text, the others are figures."""
    if title:
        print(f"\n{title}:\n")
    aligned = ["---", *["---:"] * (len(columns) - 1)]
    for row in (columns, aligned, *rows):
        print(f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in row)} |")


def figures(row: dict[str, Any]) -> tuple[str, ...]:
    """Write FLOPs, parameters, loss and top-1."""
    return (f"{row['flops']:,}", f"{row['params']:,}", f"{row['loss']:.4f}", f"{row['top1']:.2%}")


def print_test(rows: list[dict[str, Any]]) -> None:
    """Print figures on the test set."""
    columns = ["network", "FLOPs", "params", "test loss", "test top-1"]
    print_table(columns, ((row["path"], *figures(row)) for row in rows))
