"""Commands that messages name can be pasted: they name the recipe in use, and what was overridden of it."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
import typer

from autoslim_cli.cli.app import app
from autoslim_cli.files import names
from autoslim_cli.files.making import making_config, making_network
from autoslim_cli.latency.table import Device
from autoslim_cli.recipe.commands import Commands, command


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


CONFIG = '{"format": "autoslim.channels/1"}'

FROM_NAMES = {
    "supernet.safetensors": "train-supernet",
    "mine.safetensors": "retrain CONFIG",
    "model-40M.old-1.safetensors": "retrain CONFIG",
    "arch-40M.json": "search --flops 40M",
    "arch-30pct.json": "search --flops 30%",
    "arch-params-2M.json": "search --params 2M",
    "arch-300M-params-50pct-activation-memory-4MB.json": "search --flops 300M --params 50% --activation-memory 4MB",
    "arch-latency-12ms.json": "search --latency 12ms",
    "arch-latency-12ms-a-phone.json": "search --latency 12ms --latency-table {0}/latency-a-phone.json",
    "arch-12ms.json": "search --flops 50%",
    "arch-mine.json": "search --flops 50%",
    "search.json": "search --flops 50%",
    "model-40M.safetensors": "retrain {0}/arch-40M.json",
    "model-40M-from-supernet.safetensors": "retrain {0}/arch-40M.json --from supernet",
    "model-40M-from-there.safetensors": "retrain {0}/arch-40M.json --from {0}/there.safetensors",
    "model-40M-from-30M.safetensors": "retrain {0}/arch-40M.json --from {0}/model-30M.safetensors",
    "model-40M-from-nowhere.safetensors": "retrain CONFIG --name 40M-from-nowhere",
    "model-40M-from-scratch.safetensors": "retrain CONFIG --name 40M-from-scratch",
    "model-40M-joint.safetensors": "retrain --joint {0}/arch-40M.json CONFIG",
    "model-base.safetensors": "retrain CONFIG --name base",
    "model-by-hand.safetensors": "retrain {0}/by-hand.json",
    "model-by-hand-from-weights.safetensors": "retrain {0}/by-hand.json --from weights",
    "model-as-published-from-supernet.safetensors": "retrain {0}/published/as-published.json --from supernet",
    "model-width-0.5.safetensors": "retrain --width 0.5",
    "model-width-0.5-from-weights.safetensors": "retrain --width 0.5 --from weights",
    "model-uniform-30pct.safetensors": "retrain --uniform-flops 30%",
    "model-uniform-60pct-from-weights.safetensors": "retrain --uniform-flops 60% --from weights",
    "model-uniform-latency-12ms.safetensors": "run --latency 12ms",
    "model-uniform-30pct-params-2M-from-supernet.safetensors": "run --flops 30% --params 2M --from supernet",
    "model-uniform-params-2M-from-there.safetensors": "retrain CONFIG --name uniform-params-2M-from-there",
    "subnet-width-0.5.safetensors": "calibrate-bn --widths 0.5",
    "subnet-40M.safetensors": "calibrate-bn --channels {0}/arch-40M.json",
    "subnet-by-hand.safetensors": "calibrate-bn --channels {0}/by-hand.json",
    "subnet-mine.safetensors": "calibrate-bn --channels CONFIG",
    "published/model-40M.safetensors": "retrain CONFIG",
}


@pytest.fixture
def with_files(recipe):
    """The tiny recipe with configs and weights that names may speak of."""
    (recipe / "published").mkdir()
    for name in ("by-hand", "published/as-published"):
        (recipe / f"{name}.json").write_text(CONFIG)
    for name in ("there", "model-30M"):
        safetensors.torch.save_file({"x": torch.zeros(1)}, recipe / f"{name}.safetensors")
    return recipe


def making(path):
    """The words of the command that makes a file."""
    return shlex.split((making_config if path.suffix == ".json" else making_network)(path))[1:]


@pytest.mark.parametrize("file", FROM_NAMES)
def test_what_makes_a_file_is_told_by_its_name(with_files, tmp_path, file):
    words = [word.format(with_files) for word in FROM_NAMES[file].split()]
    assert making(with_files / file) == [*words, "-r", str(with_files)]
    parses(words)
    assert making(tmp_path / "nowhere" / file)[-2:] == ["-r", "RECIPE"]


def parses(words):
    """The command line takes these words, and a command has all of these options."""
    group = typer.main.get_command(app)
    name, *rest = words
    with group.make_context("autoslim", [name, *rest]) as context:
        _, inner, arguments = group.resolve_command(context, [name, *rest])
        inner.make_context(name, arguments)


def test_what_makes_a_file_depends_on_what_the_recipe_says(with_files):
    text = (with_files / "recipe.yaml").read_text()

    def recipe_with(old, new):
        (with_files / "recipe.yaml").write_text(text.replace(old, new))

    own, model = ["-r", str(with_files)], with_files / "model-width-0.5.safetensors"
    for start in ("supernet", "there.safetensors"):
        recipe_with("retrain: {", f"retrain: {{start: {start}, ")
        assert making(model) == ["retrain", "--width", "0.5", "--from", "scratch", *own]
        config = with_files / "arch-40M.json"
        joint = ["retrain", "--joint", str(config), "CONFIG", "--from", "scratch", *own]
        assert making(with_files / "model-40M-joint.safetensors") == joint
        ran = ["run", "--params", "2M", "--from", "scratch", *own]
        assert making(with_files / "model-uniform-params-2M.safetensors") == ran
    (with_files / "there.safetensors").unlink()  # the recipe itself names what it starts from
    assert making(with_files / "model-width-0.5-from-there.safetensors") == ["retrain", "--width", "0.5", *own]
    recipe_with("min_width: 0.25", "min_width: 0.25, bn: switchable, widths: [0.5, 1]")
    assert making(with_files / "subnet-width-1.safetensors") == ["extract", "--width", "1", *own]
    assert making(with_files / "subnet-40M.safetensors") == ["extract", "--width", "0.5", *own]
    (with_files / "recipe.yaml").write_text("nothing: at all")
    assert making(model) == ["retrain", "--width", "0.5", *own]


def test_a_supernet_is_cut_and_a_config_is_trained_where_a_network_is_expected(worked):
    own, supernet, config = ["-r", str(worked)], worked / "supernet.safetensors", worked / "arch-60pct.json"
    assert making(supernet) == ["calibrate-bn", "--widths", "0.5,1", *own]
    assert shlex.split(making_network(config))[1:] == ["retrain", str(config), *own]
    supernet.write_bytes(b"damaged")
    assert making(supernet) == ["train-supernet", "--force", *own]


@pytest.mark.slow
def test_what_every_stage_writes_is_made_again_by_the_command_that_its_name_tells(autoslim, worked):
    quick, own = ("retrain.epochs=1", "calibrate.images=64"), ("-r", worked)
    bounds = ("--params", "60%", "--activation-memory", "70%")
    configs = [worked / f"arch-{share}pct.json" for share in (60, 30)]
    for words in (
        ("run", "--flops", "60%", "--from", "supernet", "--retrain-base", *own),
        ("run", *bounds, *own),
        ("retrain", *configs, "--joint"),
        ("retrain", configs[0], "--from", worked / "model-60pct.safetensors"),
        ("retrain", configs[1], "--name", "mine"),
        ("calibrate-bn", "--widths", "0.5", *own),
    ):
        autoslim(*words, *quick)
    written = {*worked.glob("arch-*.json"), *worked.glob("*.safetensors")}
    called = "60pct 60pct-from-supernet uniform-60pct-from-supernet width-1-from-supernet 60pct-from-60pct 60pct-joint "
    called += "30pct-joint mine params-60pct-activation-memory-70pct uniform-params-60pct-activation-memory-70pct"
    networks = {names.network_name(path) for path in written if path.match(names.MODELS)}
    assert networks == set(called.split())
    for path in sorted(written, key=lambda path: path.name == "supernet.safetensors"):
        aside = path.rename(worked / "kept")
        words = making(path)
        if path.stem == "model-mine":
            words[words.index("CONFIG")] = str(configs[1])
        assert "CONFIG" not in words
        before = {file.name for file in worked.iterdir()}
        autoslim(*words, *quick)
        assert path.is_file(), words
        new = {file.name for file in worked.iterdir()} - before
        assert {name for name in new if ".old-" not in name and name.endswith((".json", ".safetensors"))} == {path.name}
        aside.replace(path)


def test_a_missing_damaged_or_stale_supernet_names_what_trains_it(refuse, spaced):
    wider = ("-r", spaced, "supernet.width=2")
    assert named(refuse(4, "search", "--flops", "50%", *wider)) == [
        *("train-supernet", "--force", "-r", str(spaced), "supernet.width=2")
    ]
    supernet = spaced / "supernet.safetensors"
    supernet.write_bytes(supernet.read_bytes()[:1000])
    damaged = named(refuse(4, "search", "--flops", "50%", "-r", spaced))
    assert damaged == ["train-supernet", "--force", "-r", str(spaced)]
    supernet.unlink()
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
