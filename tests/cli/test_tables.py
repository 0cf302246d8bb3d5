"""Every table that a command prints, in terminals of 80 and 60 columns, with long names and large figures."""

import os
import pty
import subprocess
import sys

import pytest

from autoslim_cli.cli import device, tables
from autoslim_cli.cli.searching import _found_row
from autoslim_cli.cli.tables import laid_out
from autoslim_cli.files.metric import TOP1

pytestmark = pytest.mark.slow

SWITCHES = ["supernet.bn=switchable", "supernet.widths=[0.5,1.0]", "supernet.width=1.0", "supernet.min_width=0.5"]
COMMANDS = {
    "train-supernet": ["-r", "{0}", "train.epochs=1", "--force"],
    "calibrate-bn": ["-r", "{0}", "--widths", "0.5:1.0:0.25", "--compare"],
    "extract": ["-r", "{0}", "--width", "0.5", "train.epochs=1", *SWITCHES],
    "search": ["-r", "{0}", "--flops", "60%", "--activation-memory", "90%", "search.strategy=uniform"],
    "retrain": ["{0}/arch-30pct.json", "retrain.epochs=1"],
    "run": ["-r", "{0}", "--flops", "60%"],
    "evaluate": ["{0}/model-60pct.safetensors"],
    "units": ["-r", "{0}", "space.pin=[layer1*]"],
    "info": ["{0}/arch-60pct.json"],
    "compare": ["{0}/arch-60pct.json", "{0}/arch-30pct.json", "{0}/model-60pct.safetensors"],
    "recipes": ["list"],
}
SUMMARY = {
    "path": "recipes/mine/latency-cpu-2-threads-nchw-onnxruntime-batch-16.json",
    "range_ms": (0.123, 1234.5),
    "shapes": 123,
    "points": 4567,
    "base_ms": 12.3,
    "verdict": "predicts well",
    "check": {
        "networks": 30, "median_error": 0.123, "p90_error": 0.4, "rank_correlation": 0.9, "repeatability": 0.02
    },
}  # fmt: skip


@pytest.fixture
def seen(monkeypatch):
    """Collect the tables that commands print."""
    printed = []

    def note(table, *more):
        printed.append(table)
        return laid_out(table, *more)

    monkeypatch.setattr(tables, "laid_out", note)
    return printed


def made_hard(table):
    """Return a table with names twice as long, and FLOPs and parameters of a large network."""
    names = [0, *(table.columns.index(name) for name in table.names if name in table.columns)]
    rows = [[f"{cell}/{cell}" if at in names else cell for at, cell in enumerate(row)] for row in table.rows]
    for at, head in enumerate(table.columns):
        if head in ("FLOPs", "params"):
            for row in rows:
                row[at] = f"4,089,{row[at]}"
    return tables.Table(table.columns, rows, table.goes, table.names, table.prose)


def check(table, width):
    """Assert that a table fits, that no figure of what is shown is cut, and that nothing vanishes in silence."""
    (heads, _, *lines), gone = laid_out(table, width)
    assert max(map(len, (heads, *lines))) <= width
    text = " ".join(" ".join(lines).split())
    kept = [at for at, head in enumerate(table.columns) if head not in gone]
    assert 0 in kept
    assert {"FLOPs", "top-1", "test top-1"} & set(table.columns) <= {table.columns[at] for at in kept} | {
        "holdout top-1"
    }
    for row in table.rows:
        for at in kept:
            if at == 0 or table.columns[at] in table.names or (table.prose and at == len(row) - 1):
                start = " ".join(tables.shortened(row[at], tables.LEAST_NAME).split("…")[0].split())
                assert start in text or table.prose
            else:
                assert row[at] in text


@pytest.mark.parametrize("command", COMMANDS)
def test_a_table_fits_a_terminal(command, worked, autoslim, seen, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")  # which says nothing of a pipe
    if command == "extract":
        worked = worked.parent / "switches"
        worked.mkdir()
        (worked / "recipe.yaml").write_text((worked.parent / "tiny/recipe.yaml").read_text())
        autoslim("train-supernet", "-r", worked, "train.epochs=1", *SWITCHES)
        seen.clear()
    out = autoslim(command, *(argument.format(worked) for argument in COMMANDS[command])).stdout
    assert seen
    for table in seen:
        for row in table.rows:  # in a pipe all is whole, on one line
            assert any(
                all(" ".join(cell.split()) in " ".join(line.split()) for cell in row) for line in out.splitlines()
            )
        for width in (80, 60):
            check(table, width)
            check(made_hard(table), width)


def test_a_profile_s_table_fits_a_terminal(seen, capsys):
    device.print_summary(SUMMARY)
    assert "0.123 to 1.23e+03 ms" in capsys.readouterr().out
    for width in (80, 60):
        check(seen[0], width)


@pytest.mark.parametrize("width", [80, 60])
def test_in_a_terminal(worked, width):
    """Of all that a real terminal gets, no line is longer than it is wide."""
    text = on_terminal(
        width, "calibrate-bn", "-r", str(worked), "--widths", "0.5", "--channels", str(worked / "arch-60pct.json")
    )
    table = text[text.index("sub-network") :].splitlines()
    assert max(map(len, table)) <= width
    assert "width-0.5" in text
    assert ("not shown here: file" in text) == (len(str(worked)) > width - 60)


def on_terminal(width, *arguments):
    """Run a command in a terminal; return what it prints."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    running = subprocess.Popen(
        [sys.executable, "-m", "autoslim_cli", *arguments],
        stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, env={**environment, "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # it has ended
            break
        if not part:
            break
        written += part
    os.close(ours)
    assert running.wait() == 0
    return written.decode().replace("\r\n", "\n")


def test_a_search_that_went_on_where_latency_is_not_measured_has_its_table():
    rows = [{"path": "arch-12ms.json", "flops": 1, "params": 1, "loss": 1.0, "top1": 0.5, "latency": 11.0}]
    rows = [{**rows[0], "measured_latency": 12.0}, rows[0]]
    assert [_found_row(row, ["latency", "measured_latency"], TOP1)[5:7] for row in rows] == [
        ("11ms", "12ms"),
        ("11ms", ""),
    ]
