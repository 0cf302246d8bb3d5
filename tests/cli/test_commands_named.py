"""Commands that messages name can be pasted: they name the recipe in use, and what was overridden of it."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from autoslim_cli.latency.table import Device
from autoslim_cli.recipe.commands import Commands, command, making_config, making_network


def named(line):
    """Return the words of the one command that a line names, as a shell would split them."""
    (text,) = re.findall(r"`(autoslim [^`]*)`", line)
    return shlex.split(text)[1:]


@pytest.fixture
def spaced(worked, tmp_path):
    """The worked recipe in a directory whose name a shell would split."""
    return Path(shutil.move(worked, tmp_path / "my recipe"))


def test_the_recipe_in_use_is_named_as_a_shell_takes_it():
    assert command("retrain", Path("my recipe/arch.json")) == "autoslim retrain 'my recipe/arch.json'"
    here, there = Commands(Path()), Commands(Path("my recipe"), ("train.epochs=2", "space.pin=[a, b]"))
    assert here("search", "--flops", "50%") == "autoslim search --flops 50%"
    assert there("units") == "autoslim units -r 'my recipe' train.epochs=2 'space.pin=[a, b]'"
    assert there.on_file("retrain", "x.json") == "autoslim retrain x.json train.epochs=2 'space.pin=[a, b]'"
    # Of a recipe that nobody knows there is no command that works on another.
    assert Commands(None)("units") == "autoslim units -r RECIPE"


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("supernet.safetensors", ["calibrate-bn", "--widths", "0.5,1"]),
        ("mine.safetensors", ["retrain", "CONFIG"]),
        ("arch-40M.json", ["search", "--flops", "40M"]),
        ("arch-30pct.json", ["search", "--flops", "30%"]),
        ("arch-12ms.json", ["search", "--flops", "50%"]),
        ("search.json", ["search", "--flops", "50%"]),
        ("model-40M.safetensors", ["retrain", "{0}/arch-40M.json"]),
        ("model-width-0.5.safetensors", ["retrain", "--width", "0.5"]),
        ("model-uniform-30pct.safetensors", ["retrain", "--uniform-flops", "30%"]),
        ("subnet-width-0.5.safetensors", ["calibrate-bn", "--widths", "0.5"]),
        ("subnet-40M.safetensors", ["calibrate-bn", "--channels", "{0}/arch-40M.json"]),
    ],
)
def test_what_makes_a_file_is_told_by_its_name(recipe, tmp_path, file, words):
    making = making_config if file.endswith(".json") else making_network
    made = shlex.split(making(recipe / file))[1:]
    assert made == [*(word.format(recipe) for word in words), "-r", str(recipe)]
    assert making(tmp_path / "nowhere" / file).endswith(" -r RECIPE")


def test_a_missing_or_stale_supernet_names_what_trains_it(refuse, spaced):
    wider = ("-r", spaced, "supernet.width=2")
    assert named(refuse(4, "search", "--flops", "50%", *wider)) == [
        *("train-supernet", "--force", "-r", str(spaced), "supernet.width=2")
    ]
    (spaced / "supernet.safetensors").unlink()
    assert named(refuse(4, "search", "--flops", "50%", *wider)) == [
        *("train-supernet", "-r", str(spaced), "supernet.width=2")
    ]


def test_files_that_are_not_there_name_what_makes_them(refuse, spaced, monkeypatch):
    assert named(refuse(4, "retrain", spaced / "arch-20pct.json")) == ["search", "--flops", "20%", "-r", str(spaced)]
    said = refuse(4, "evaluate", spaced / "model-30pct.safetensors")
    assert named(said) == ["retrain", str(spaced / "arch-30pct.json"), "-r", str(spaced)]
    monkeypatch.chdir(spaced)
    assert named(refuse(4, "retrain", "arch-20pct.json")) == ["search", "--flops", "20%"]


def test_a_file_of_another_recipe_is_told_where_it_belongs(refuse, spaced, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(spaced, other)
    (other / "recipe.yaml").write_text((other / "recipe.yaml").read_text().replace("classes: 10", "classes: 11"))
    model = spaced / "model-60pct.safetensors"
    assert named(refuse(4, "evaluate", model, "-r", other)) == ["evaluate", str(model)]
    assert "restore model.input" in refuse(4, "evaluate", other / "model-60pct.safetensors")
    shutil.copy(model, tmp_path / "loose.safetensors")
    said = refuse(4, "evaluate", tmp_path / "loose.safetensors", "-r", other)
    assert named(said) == ["evaluate", str(tmp_path / "loose.safetensors"), "-r", "RECIPE"]


TABLE = {
    "format": "autoslim.latency/1",
    "model": {"name": "autoslim/cifar_resnet", "args": {"depth": 8, "in_channels": 1, "width": 8}, "input": [1, 8, 8]},
    "device": {"name": "a board", "kind": "cpu", "threads": 3, "engine": "onnxruntime", "batch": 4},
    "layers": [],
}


def test_a_latency_table_that_will_not_do_names_what_measures_it(refuse, spaced):
    search = ("search", "--latency", "50%", "-r", spaced)
    assert named(refuse(4, *search, "search.stride=0.5")) == ["profile", "-r", str(spaced), "search.stride=0.5"]
    table, measured = spaced / "latency-x.json", ["--engine", "onnxruntime", "--batch", "4", "--threads", "3"]
    table.write_text(json.dumps({**TABLE, "model": {**TABLE["model"], "classes": 10}}))
    said = refuse(4, *search, "--latency-table", table)
    assert named(said) == ["profile", *measured, "--resume", "-r", str(spaced)]
    assert said.endswith("finishes it, on a board")
    said = refuse(4, *search, "--latency-table", table, "model.classes=11", "data.name=digits")
    assert named(said) == ["profile", *measured, "-r", str(spaced), "model.classes=11", "data.name=digits"]
    # Without a recipe in use it is the one that the table lies in.
    info = ("info", spaced / "arch-60pct.json", "--latency-table", table)
    assert named(refuse(4, *info)) == ["profile", *measured, "--resume", "-r", str(spaced)]
    table.write_text(json.dumps({**TABLE, "model": {**TABLE["model"], "classes": 10}, "complete": True}))
    assert named(refuse(4, *info)) == ["profile", *measured, "-r", str(spaced)]


def test_a_device_says_the_options_that_measure_it(autoslim):
    def options(**settings):
        return Device(name="x", **settings).options

    assert options(kind="cuda", channels_last=True) == []
    assert options(kind="cpu", threads=1) == ["--no-channels-last", "--threads", "1"]
    assert options(kind="cuda", engine="compile", dtype="fp16") == [
        *("--engine", "compile", "--dtype", "fp16", "--no-channels-last")
    ]


def test_units_and_switches_are_asked_of_the_recipe_in_use(refuse, spaced):
    pinned = "space.pin=['*']"
    said = refuse(2, "train-supernet", "-r", spaced, pinned, "--force")
    assert named(said) == ["units", "-r", str(spaced), pinned]
    assert named(refuse(2, "extract", "--width", "0.5", "-r", spaced)) == [
        *("calibrate-bn", "--widths", "0.5", "-r", str(spaced))
    ]
    switchable = ("supernet.bn=switchable", "supernet.widths=[0.5, 1]")
    said = refuse(2, "calibrate-bn", "--widths", "0.5", "-r", spaced, *switchable)
    assert named(said) == ["extract", "--width", "0.5", "-r", str(spaced), *switchable]
    channels = json.loads((spaced / "arch-60pct.json").read_text())
    del channels["channels"]["conv1"]
    (spaced / "arch-60pct.json").write_text(json.dumps(channels))
    assert "unit 'conv1' is missing" in refuse(2, "retrain", spaced / "arch-60pct.json")
