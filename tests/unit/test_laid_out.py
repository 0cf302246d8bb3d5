"""Tables: figures are never cut, columns go before names, and what is cut or gone shows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoslim_cli.cli.tables import LEAST_NAME, Table, laid_out, shortened

NAME = "recipes/mine/model-40M-from-supernet-of-a-long-name.safetensors"
ROWS = [[NAME, "1,234,567,890", "12,345,678", "0.1234", "98.76%"], ["short", "1", "2", "0.5", "9.00%"]]
TABLE = Table(["network", "FLOPs", "params", "loss", "top-1"], ROWS, goes=["params", "loss"])


def test_without_a_width_everything_is_whole():
    lines, gone = laid_out(TABLE, None)
    assert not gone
    for row, line in zip(ROWS, lines[2:], strict=True):
        assert line.split() == row


def test_columns_go_before_names_are_cut():
    whole = len(NAME) + 13 + 10 + 6 + 6 + 4 * 3
    for width, gone in (
        (whole, 0),
        (whole - 1, 1),
        (whole - 13, 1),
        (whole - 14, 2),
        (whole - 22, 2),
        (80, 2),
        (60, 2),
    ):
        lines, went = laid_out(TABLE, width)
        assert went == ["params", "loss"][:gone]
        assert max(map(len, lines)) <= width
        name, *figures = lines[2].split()
        assert name == (NAME if width > 80 else shortened(NAME, width - 25))
        assert figures == [ROWS[0][1], *ROWS[0][2 + gone : 4], ROWS[0][4]]


@given(st.text("abc.é中", max_size=40), st.integers(1, 40))
def test_a_name_that_is_cut_says_so_and_fits(text, size):
    from rich.cells import cell_len

    cut = shortened(text, size, cell_len)
    assert cell_len(cut) <= size
    if cut != text:
        head, tail = cut.split("…")
        assert text.startswith(head)
        assert text.endswith(tail)


@given(
    st.lists(st.lists(st.text("abcd.", min_size=1, max_size=60), min_size=4, max_size=4), min_size=1, max_size=4),
    st.integers(10, 90),
)
def test_figures_are_never_cut(rows, width):
    rows = [[name, *(str(len(cell) ** 9) for cell in cells)] for name, *cells in rows]
    lines, gone = laid_out(Table(["name", "one", "two", "three"], rows, goes=["two", "one"]), width)
    assert gone == ["two", "one"][: len(gone)]
    for (_, one, two, three), line in zip(rows, lines[2:], strict=True):
        kept = [one] * ("one" not in gone) + [two] * ("two" not in gone) + [three]
        assert line.split()[-len(kept) :] == kept
    figures = max(len(row[3]) for row in [["", "", "", "three"], *rows])
    if width >= figures + 3 + LEAST_NAME:
        assert max(map(len, lines)) <= width


def test_prose_is_wrapped_and_a_line_of_its_row_is_whole_in_a_pipe():
    reason = "flatten of a tensor whose height and width are not known, so that its channels cannot be counted"
    table = Table(
        ["unit", "base", "step", "pinned"], [["layer1.0.conv1", "64", "8", reason]], goes=["step"], prose=True
    )
    lines, gone = laid_out(table, 60)
    assert not gone
    assert max(map(len, lines)) <= 60
    assert " ".join(" ".join(lines[2:]).split()) == f"layer1.0.conv1 64 8 {reason}"
    lines, gone = laid_out(table, 50)
    assert gone == ["step"]
    assert len(laid_out(table, None)[0]) == 3


@pytest.mark.parametrize("width", [1, 20, 60])
def test_a_table_without_rows(width):
    assert laid_out(Table(["network", "FLOPs"], []), width)[0][0].split() == ["network", "FLOPs"]
