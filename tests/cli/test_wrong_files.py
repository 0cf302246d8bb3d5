"""A file of another kind than a command takes: it says what the file is, and what makes one of the right kind."""

import json

import pytest
import torch

from autoslim_cli.files.kinds import what_is

KINDS = {
    "arch-60pct.json": "a channel config",
    "supernet.safetensors": "a supernet",
    "model-60pct.safetensors": "a trained network",
    "latency-x.json": "a latency table",
    "search.jsonl": "the log of a search",
    "results.json": "another JSON file",
    "model.onnx": "an ONNX file",
    "state.pt": "weights, or what else torch.save wrote",
    "manifest.json": "the manifest of a latency suite",
    "foreign.safetensors": "safetensors that autoslim did not write",
    "notes.txt": "a text file",
    "plain.yaml": "a recipe's recipe.yaml",
    "directory": "a directory",
}


@pytest.fixture
def files(worked):
    """The worked recipe with a file of every kind in it."""
    from safetensors.torch import save_file

    (worked / "latency-x.json").write_text(json.dumps({"format": "autoslim.latency/1"}))
    (worked / "manifest.json").write_text(json.dumps({"format": "autoslim.latency-suite/1"}, indent=2))
    (worked / "results.json").write_text('{"networks": []}')
    (worked / "model.onnx").write_bytes(b"\x08\x0a\x12\x07pytorch\xff")
    (worked / "notes.txt").write_text("some notes\n")
    (worked / "plain.yaml").write_text("format: autoslim.recipe/1\n")
    (worked / "directory").mkdir()
    torch.save({"a": torch.zeros(1)}, worked / "state.pt")
    save_file({"a": torch.zeros(1)}, worked / "foreign.safetensors")
    return worked


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_what_a_file_is(files, name, kind):
    assert what_is(files / name) == kind


def test_what_nothing_tells(tmp_path):
    assert what_is(tmp_path / "absent") is None
    for name, content in {"a.json": b"{", "b.safetensors": b"abc", "c": b"\xff\xfe\x00", "d.txt": b" \n"}.items():
        (tmp_path / name).write_bytes(content)
        assert what_is(tmp_path / name) is None


TAKING = {
    "config": (["calibrate-bn", "--channels", "{0}/{1}", "-r", "{0}"], "arch-60pct.json"),
    "checkpoint": (["evaluate", "{0}/{1}"], "model-60pct.safetensors supernet.safetensors"),
    "table": (["search", "--latency", "50%", "-r", "{0}", "--latency-table", "{0}/{1}"], "latency-x.json"),
    "weights": (
        ["retrain", "--width", "1", "-r", "{0}", "--from", "{0}/{1}"],
        "model-60pct.safetensors supernet.safetensors state.pt foreign.safetensors notes.txt directory",
    ),
    "suite": (["profile", "--import", "{0}/{1}", "-r", "{0}"], "directory"),
}


@pytest.mark.parametrize("takes", TAKING)
def test_each_kind_of_file_where_another_is_expected(refuse, files, takes):
    words, right = TAKING[takes]
    for name, kind in KINDS.items():
        if name in right.split() or (takes, name) in (
            ("config", "results.json"),  # it may be meant for one: it says what a config begins with
            ("table", "results.json"),
            ("checkpoint", "foreign.safetensors"),
            ("weights", "latency-x.json"),  # asked as a config first
            ("weights", "results.json"),
            ("weights", "manifest.json"),
        ):
            continue
        said = refuse(4, *(word.format(files, name) for word in words))
        assert kind in said, (name, said)
        assert not any(word in said for word in ("not valid JSON", "deserializ", "codec", "pickle", "damaged"))


def test_retrain_says_how_to_go_on_from_weights(refuse, files):
    said = refuse(2, "retrain", files / "model-60pct.safetensors")
    config, model = files / "arch-60pct.json", files / "model-60pct.safetensors"
    assert said.endswith(f"`autoslim retrain {config} --from {model} -r {files}`")
    assert said.startswith(f"error: {model}: a trained network; retrain takes a channel config")
    said = refuse(2, "retrain", files / "supernet.safetensors")
    assert said.endswith(f"`autoslim retrain CONFIG --from supernet -r {files}`")


def test_a_config_that_is_to_be_measured_is_trained_first(refuse, files):
    config = files / "arch-60pct.json"
    assert refuse(4, "evaluate", config).endswith(f"`autoslim retrain {config} -r {files}` makes one")
    assert f"`autoslim calibrate-bn --widths 0.5,1 -r {files}`" in refuse(
        4, "export", "--onnx", files / "supernet.safetensors"
    )


def test_a_file_is_no_recipe_but_lies_in_one(refuse, files, tmp_path):
    said = refuse(2, "units", "-r", files / "recipe.yaml")
    assert said.endswith(f"recipe.yaml is a file: a recipe is a directory: {files} is one")
    (tmp_path / "alone.txt").write_text("x")
    assert "with recipe.yaml in it" in refuse(2, "units", "-r", tmp_path / "alone.txt")


def test_what_comes_next_suits_what_was_looked_at(autoslim, worked):
    supernet, model = worked / "supernet.safetensors", worked / "model-60pct.safetensors"
    assert f"next: autoslim calibrate-bn --widths 0.5,1 -r {worked}" in autoslim("info", supernet).stderr
    assert "next: autoslim export" not in autoslim("compare", supernet).stderr
    assert f"next: autoslim export --onnx {model}" in autoslim("compare", supernet, model).stderr
