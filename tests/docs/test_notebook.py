"""The notebook runs from top to bottom: its cells, with fewer epochs, without Jupyter."""

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "slim-your-network.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


@pytest.mark.slow
def test_the_cells_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for cell in CELLS:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]).replace("epochs=8", "epochs=2"), NOTEBOOK.name, "exec"), names)
    said = capsys.readouterr().out
    assert "epoch 2/2" in said  # of the supernet; and none of eight
    assert [line.split(":")[0] for line in said.splitlines()[-3:]] == ["base", "one width", "searched"]
    assert not list(tmp_path.iterdir())


def test_the_notebook_is_kept_without_outputs():
    assert not [cell for cell in CELLS if cell.get("outputs") or cell.get("execution_count")]
    assert 8 <= len(CELLS) <= 20
