"""Lay a table out: whole in a pipe; on a terminal within its width, where columns go before names are cut."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

GAP = 3
"""Spaces between two columns."""
LEAST_NAME, LEAST_PROSE = 12, 24
"""Cells that a name is shortened to at most, and that prose gets at least."""


@dataclass(frozen=True)
class Table:
    """Hold columns of text: names in the first and in `names`, prose in the last if it is, else figures.

    `goes` says which columns go where room is short, the first one first.
    """

    columns: list[str]
    rows: list[list[str]]
    goes: Sequence[str] = ()
    names: Sequence[str] = ()
    prose: bool = False

    def without(self, column: str) -> "Table":
        """Return the table without a column."""
        place = self.columns.index(column)
        rows = [[cell for at, cell in enumerate(row) if at != place] for row in self.rows]
        columns = [head for head in self.columns if head != column]
        return Table(columns, rows, self.goes, self.names, self.prose and place < len(columns))


def laid_out(table: Table, width: int | None, measure: Callable[[str], int] = len) -> tuple[list[str], list[str]]:
    """Return a table's lines, of `width` cells at most, and the heads of the columns that went; None: all are whole.

    Figures are never cut: where they alone take more, lines are longer. `measure` counts the cells of a text.
    """
    gone: list[str] = []
    if width is not None:
        # 1. What matters less goes, until names are whole.
        for column in table.goes:
            if _needed(table, measure) <= width:
                break
            if column in table.columns:
                table = table.without(column)
                gone.append(column)
        # 2. Names that are still too long are shortened, the longest first.
        table = _shortened(table, width, measure)
    # 3. Prose takes what is left, in as many lines as it needs.
    sizes = _sizes(table, measure)
    if table.prose and width is not None:
        sizes[-1] = min(sizes[-1], max(LEAST_PROSE, width - sum(sizes[:-1]) - GAP * (len(sizes) - 1)))
    lines = [_line(table, table.columns, sizes, measure), "─" * (sum(sizes) + GAP * (len(sizes) - 1))]
    for row in table.rows:
        first, *others = textwrap.wrap(row[-1], sizes[-1]) or [""] if table.prose else [row[-1]]
        lines.append(_line(table, [*row[:-1], first], sizes, measure))
        lines += [_line(table, [*[""] * (len(row) - 1), more], sizes, measure) for more in others]
    return lines, gone


def shortened(text: str, size: int, measure: Callable[[str], int] = len) -> str:
    """Return a text of `size` cells at most: `features.1…conv.2` keeps the beginning and the end, and shows the cut."""
    if measure(text) <= size:
        return text
    head, tail = text[: len(text) // 2], text[len(text) // 2 :]
    while measure(head) + measure(tail) >= size and (head or tail):
        head, tail = (head[:-1], tail) if measure(head) > measure(tail) else (head, tail[1:])
    return f"{head}…{tail}"


def _sizes(table: Table, measure: Callable[[str], int]) -> list[int]:
    """Return the cells that each column takes."""
    return [max(map(measure, column)) for column in zip(table.columns, *table.rows, strict=True)]


def _needed(table: Table, measure: Callable[[str], int]) -> int:
    """Return the cells that a table takes with whole names, and with prose in a narrow column."""
    sizes = _sizes(table, measure)
    if table.prose:
        sizes[-1] = min(sizes[-1], LEAST_PROSE)
    return sum(sizes) + GAP * (len(sizes) - 1)


def _shortened(table: Table, width: int, measure: Callable[[str], int]) -> Table:
    """Return the table with names that let it fit, if any do."""
    named = [place for place, head in enumerate(table.columns) if place == 0 or head in table.names]
    sizes, over = _sizes(table, measure), _needed(table, measure) - width
    for _ in range(over):
        longest = max(named, key=sizes.__getitem__)
        sizes[longest] -= sizes[longest] > LEAST_NAME
    rows = [
        [shortened(cell, sizes[place], measure) if place in named else cell for place, cell in enumerate(row)]
        for row in (table.columns, *table.rows)
    ]
    return Table(rows[0], rows[1:], table.goes, table.names, table.prose)


def _line(table: Table, cells: Sequence[str], sizes: list[int], measure: Callable[[str], int]) -> str:
    """Write one line: names and prose begin their column, figures end it."""
    left = {0, *([len(sizes) - 1] if table.prose else ())}
    left |= {place for place, head in enumerate(table.columns) if head in table.names}
    padded = []
    for place, (cell, size) in enumerate(zip(cells, sizes, strict=True)):
        space = " " * (size - measure(cell))
        padded.append(cell + space if place in left else space + cell)
    return (" " * GAP).join(padded).rstrip()
