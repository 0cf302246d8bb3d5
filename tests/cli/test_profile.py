"""Latency from the command line: profile, search under latency, and what is refused."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import run_autoslim

from autoslim_cli import progress
from autoslim_cli.cli.device import share_in_reach
from autoslim_cli.cli.options import open_recipe
from autoslim_cli.files.making import making_config
from autoslim_cli.latency import measuring, table_choice, timing
from autoslim_cli.latency import suite as suite_files
from autoslim_cli.latency.local_device import is_local, local_device
from autoslim_cli.latency.summary import FEWEST
from autoslim_cli.latency.table import Correction, read_table, table_name
from autoslim_cli.recipe.schema import Recipe
from autoslim_cli.stages import answers, profile
from autoslim_cli.stages.project import with_latency

pytestmark = pytest.mark.slow


def hurry(monkeypatch):
    """Measure few networks and short samples, once."""
    for module in (measuring, profile):
        monkeypatch.setattr(module, "FITTED", 3)
        monkeypatch.setattr(module, "CHECKED", 4)
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 1e-5)
    monkeypatch.setattr(timing, "COLD_ROUNDS", 1)


@pytest.fixture
def quick(monkeypatch):
    """Let profiles be quick: what is measured does not matter here."""
    hurry(monkeypatch)


@pytest.fixture(scope="session")
def _profiled_once(_worked_once, tmp_path_factory):
    directory = Path(shutil.copytree(_worked_once, tmp_path_factory.mktemp("profiled") / "tiny"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        hurry(monkeypatch)
        run_autoslim("profile", "-r", directory)
    return table_of(directory)


@pytest.fixture
def profiled(worked, _profiled_once):
    """The table of this machine, in the directory of a worked recipe."""
    return Path(shutil.copy(_profiled_once, worked))


def table_of(directory):
    (path,) = directory.glob("latency-*.json")
    return path


def falling(table):
    """Let every layer take a microsecond for each of its counts."""
    for layer in table["layers"]:
        layer["ms"] = [1e-3 * sum(point) + 1e-6 for point in itertools.product(*layer["counts"])]
    table["correction"] = {"networks": 0}


@pytest.fixture
def synthetic(worked, profiled, quick):
    """A table in which one unit's convolution takes a microsecond per channel, and all else hardly anything."""
    values = json.loads(profiled.read_text())
    values["device"] |= {"name": "a phone", "kind": "npu"}
    values["correction"] = {"networks": 0}
    del values["check"], values["fitted"], values["checked"]
    for layer in values["layers"]:
        layer["ms"] = [1e-6] * len(layer["ms"])
        if layer["example"] == "layer2.0.conv1":
            first, second = layer["counts"]
            layer["ms"] = [b * 1e-3 for _ in first for b in second]
    other = worked / "latency-phone.json"
    other.write_text(json.dumps(values))
    profiled.unlink()
    return other


def test_a_report_shows_accuracy_against_latency_and_where_it_goes(worked, synthetic, autoslim_json):
    figures = autoslim_json("report", "-r", worked)["figures"]
    assert {"accuracy-ms on phone", "ms on phone"} <= figures.keys()
    assert "predicted ms on phone" in Path(figures["accuracy-ms on phone"]).read_text()
    assert "Where ms on phone go" in (worked / "report.html").read_text()


@pytest.mark.parametrize("count", [400, 1])
def test_a_report_has_no_latency_for_channels_beyond_those_measured(worked, synthetic, autoslim_json, count):
    config = json.loads((worked / "arch-60pct.json").read_text())
    config["channels"]["layer1.0.conv1"] = count
    larger = worked / "arch-larger.json"
    larger.write_text(json.dumps({key: config[key] for key in ("format", "model", "channels")}))
    (note,) = autoslim_json("report", "-r", worked)["left_out"]
    assert note == f"{larger}: channels beyond the supernet's, for which no latency was measured"


def test_profile_then_search_by_latency(worked, quick, autoslim_json):
    result = autoslim_json("profile", "-r", worked)
    table = read_table(table_of(worked))
    assert result["path"] == str(table_of(worked))
    assert table.complete
    assert result["points"] == sum(len(layer.ms) for layer in table.layers) > 3 * len(table.layers)
    assert {"median_error", "p90_error", "rank_correlation", "repeatability"} < result["check"].keys()
    edited(table_of(worked), falling)  # so small a network takes the same time at any channels
    (found,) = autoslim_json("search", "--latency", "70%", "-r", worked)["configs"]
    config = json.loads((worked / found["path"].rsplit("/", 1)[-1]).read_text())
    latency = config["cost"]["latency"]
    assert latency["predicted_ms"] == pytest.approx(found["latency"], abs=1e-4)
    assert latency["measured_ms"] == found["measured_latency"] > 0
    assert config["found"]["binding"] == "latency"
    # The same table predicts any config of the network.
    told = autoslim_json("info", found["path"], "--latency-table", table_of(worked))["latency"]
    assert told["predicted_ms"] == pytest.approx(latency["predicted_ms"], abs=1e-4)
    assert told["device"] == latency["device"]


def test_a_stopped_profile_goes_on(recipe, quick, autoslim, autoslim_json, monkeypatch):
    measured, whole = [], measuring.measure_shape

    def stop_after_three(shape, *rest):
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append(shape.piece.shape)
        return whole(shape, *rest)

    monkeypatch.setattr(measuring, "measure_shape", stop_after_three)
    autoslim("profile", "-r", recipe, code=130)
    before = read_table(table_of(recipe))
    assert not before.complete
    assert [layer.shape for layer in before.layers] == measured
    autoslim("search", "--latency", "50%", "-r", recipe, code=4)  # layers are missing
    monkeypatch.setattr(measuring, "measure_shape", whole)
    autoslim_json("profile", "-r", recipe, "--resume")
    after = read_table(table_of(recipe))
    assert after.complete
    assert after.layers[:3] == before.layers


def test_networks_that_were_run_are_not_run_again(worked, quick, autoslim, autoslim_json, monkeypatch):
    config = sorted(worked.glob("arch-*.json"))[0]
    calls, whole = [], measuring.time_network

    def stop_at(last):
        def timed(reading, channels, *rest):
            if len(calls) == last:
                raise KeyboardInterrupt
            calls.append(channels)
            return whole(reading, channels, *rest)

        monkeypatch.setattr(measuring, "time_network", timed)

    stop_at(4)  # of the first of two measurements of seven networks
    autoslim("profile", "-r", worked, code=130)
    stop_at(10)  # of the second
    autoslim("profile", "-r", worked, "--resume", code=130)
    between = read_table(table_of(worked))
    assert [len(network.ms) for network in (*between.fitted, *between.checked)] == [2, 2, 2, 1, 1, 1, 1]
    stop_at(None)
    autoslim_json("profile", "-r", worked, "--resume")
    after = read_table(table_of(worked))
    networks = (*after.fitted, *after.checked)
    assert [network.channels for network in networks] * 2 == calls
    assert all(len(network.ms) == 2 for network in networks)
    assert networks[0] == between.fitted[0]
    # Another search space: what was run is no longer of it. Until it is measured, nothing may pass for the whole table.
    calls.clear()
    stop_at(2)
    autoslim("profile", "-r", worked, "--resume", "supernet.width=2.0", code=130)
    table = read_table(table_of(worked))
    assert not table.complete
    assert table.check is None
    assert table.correction == Correction()
    said = autoslim("info", config, "--latency-table", table_of(worked), code=4).stderr
    assert f" --resume -r {worked}` finishes it, on " in said
    stop_at(None)
    autoslim_json("profile", "-r", worked, "--resume", "space.pin=[layer1.*]")
    assert read_table(table_of(worked)).complete


def test_another_devices_table_is_not_replaced(worked, profiled, refuse):
    edited(profiled, lambda table: table["device"].update(name="another processor"))
    assert "move it" in refuse(2, "profile", "-r", worked)
    line = refuse(4, "profile", "--resume", "-r", worked)
    assert "(device.name was another processor, is " in line
    assert "profile again without --resume" in line
    edited(profiled, lambda table: table.update(network="sha256:0"))
    assert "is another network than when the table was made" in refuse(4, "profile", "--resume", "-r", worked)


def test_a_search_on_a_gpu_may_be_for_this_machines_cpu(worked, profiled, monkeypatch):
    project = open_recipe(worked, ())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "some GPU")
    gpu = torch.device("cuda")
    project = with_latency(replace(project, device=gpu), None)
    assert project.latency_table == profiled == table_choice._own_table(project.directory, gpu, project.commands)
    device, network = read_table(profiled).device, project.network
    assert is_local(device, gpu)
    assert measuring.time_found(network.reading, network.space.smallest, device, gpu, project.reporter) > 0


def test_engines_that_are_not_here_are_refused(worked, refuse, monkeypatch):
    def broken(*_):
        raise RuntimeError("no compiler\nat all")

    monkeypatch.setattr(torch, "compile", broken)
    assert "does not work here (no compiler)" in refuse(2, "profile", "--engine", "compile", "-r", worked)


FULL = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 256 bytes."),
]


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_out_of_memory_names_what_decides_how_much_is_needed(worked, refuse, monkeypatch, tmp_path, error):
    def exhausted(*_, **__):
        raise error

    monkeypatch.setattr(measuring, "load", exhausted)
    monkeypatch.setattr(suite_files, "onnx_bytes", exhausted)
    monkeypatch.setattr(torch.onnx, "export", exhausted)
    of_recipes = [
        refuse(1, "profile", "--batch", "7", "-r", worked),
        refuse(1, "export", "--latency-suite", tmp_path / "suite", "--batch", "7", "-r", worked),
    ]
    of_a_file = refuse(1, "export", "--onnx", sorted(worked.glob("arch-*.json"))[0], "--batch", "7")
    for line in (*of_recipes, of_a_file):
        assert "out of memory" in line
        assert "--batch 7" in line
        named = re.findall(r"\b([a-z]+)\.([a-z_]+)\b", line)
        assert sorted(named) == ([] if line == of_a_file else [("model", "input"), ("supernet", "width")])
        for section, key in named:
            assert key in Recipe.model_fields[section].annotation.model_fields


def test_numbers_that_no_machine_has_are_refused(worked, refuse, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda _: pytest.fail("threads were set"))
    for command in (("profile",), ("export", "--latency-suite", worked / "suite")):
        assert "--batch" in refuse(2, *command, "--batch", "1000000000000000000000", "-r", worked)
    assert "--threads 100000" in refuse(2, "profile", "--threads", "100000", "-r", worked)


def test_lines_tell_how_far_it_is(worked, quick, autoslim, monkeypatch, tmp_path):
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    lines = autoslim("profile", "-r", worked).stderr
    assert "layer shapes: 1/" in lines
    assert "networks: 1/14" in lines
    pytest.importorskip("onnxruntime")
    lines = autoslim("export", "--latency-suite", tmp_path / "suite", "--networks", "4", "-r", worked).stderr
    assert "layer shapes: 1/" in lines
    assert "networks: 4/4" in lines


def test_a_search_for_another_device_finds_the_known_optimum(worked, synthetic, autoslim_json, autoslim):
    (found,) = autoslim_json("search", "--latency", "55%", "--latency-table", synthetic, "-r", worked)["configs"]
    assert "measured_latency" not in found  # this is not that phone
    path = worked / "arch-latency-55pct-phone.json"
    again = f"autoslim search --latency 55% --latency-table {synthetic} -r {worked}"
    assert (Path(found["path"]), making_config(path)) == (path, again)
    config = json.loads(path.read_text())
    assert config["cost"]["latency"]["device"].endswith("of a phone")
    # All latency is in one unit: it falls to the most channels that hold the budget, and no other loses any.
    space = {row["name"]: row for row in autoslim_json("units", "-r", worked)["units"]}
    for name, count in config["channels"].items():
        if name != "layer2.0.conv1":
            assert count == space[name]["supernet"], name
    unit = space["layer2.0.conv1"]
    grid = range(unit["supernet"], unit["min"] - 1, -unit["step"])
    assert config["channels"]["layer2.0.conv1"] == max(c for c in grid if c <= 0.55 * unit["base"])
    steps = [json.loads(line) for line in (worked / "search.jsonl").read_text().splitlines()]
    assert {step["unit"] for step in steps if "step" in step} == {"layer2.0.conv1"}
    # Side by side with others, and alone, its latency is that of the table.
    _, row = autoslim_json("compare", path, "--latency-table", synthetic)["networks"]  # after the base network
    assert row["latency_ms"] == autoslim_json("info", path, "--latency-table", synthetic)["latency"]["predicted_ms"]
    # Several measures in one budget: the one that binds is named.
    (both,) = autoslim_json(
        *("search", "--latency", "90%", "--flops", "30%", "--latency-table", synthetic, "-r", worked)
    )["configs"]
    named = json.loads((worked / both["path"].rsplit("/", 1)[-1]).read_text())["found"]
    assert named["binding"] == "flops"
    assert (
        both["flops"]
        <= 0.3 * json.loads(autoslim("info", worked / "arch-30pct.json", "--json").stdout)["base"]["flops"]
    )


BAD = {"networks": 30, "median_error": 0.41, "p90_error": 0.9, "rank_correlation": 0.46, "repeatability": 0.02}


def test_the_next_command_s_latency_is_in_reach():
    assert share_in_reach(0.2, 1.0) == "50%"
    assert share_in_reach(0.934, 1.01) == "96%"


def test_profile_ends_in_a_verdict(worked, quick, autoslim, autoslim_json, monkeypatch):
    for module in (measuring, profile):
        monkeypatch.setattr(module, "CHECKED", FEWEST)
    result = autoslim("profile", "-r", worked)
    told = autoslim_json("profile", "-r", worked, "--resume")["verdict"]
    assert ("search --flops" in result.stderr) == told.startswith("predicts badly: ")
    assert result.stdout.rstrip().splitlines()[-1] == told
    assert told.startswith(("predicts well: ", "predicts roughly: ", "predicts badly: "))


@pytest.mark.parametrize("option", [[], ["-q"]])
def test_a_search_by_a_table_that_predicts_badly_is_warned_of(worked, synthetic, autoslim, option):
    arguments = ("search", "--latency", "70%", "--latency-table", synthetic, "-r", worked, *option)
    edited(synthetic, lambda table: table.update(check={**BAD, "rank_correlation": 0.99, "median_error": 0.03}))
    assert "warning: " not in autoslim(*arguments).stderr
    edited(synthetic, lambda table: table.update(check=BAD))
    said = autoslim(*arguments).stderr
    assert f"warning: {synthetic} predicts badly: rank correlation 0.46 and median error 41%" in said
    edited(synthetic, lambda table: table.pop("check"))
    assert "unchecked" in autoslim(*arguments).stderr


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"version": "1.0"}, "by eager 1.0, not "), ({"threads": 77}, "with 77 threads, not "), ({}, "")],
    ids=["version", "threads", "as it was"],
)
def test_a_table_that_was_measured_otherwise_is_taken_with_a_warning(worked, profiled, autoslim, changes, said):
    edited(profiled, lambda table: (falling(table), table["device"].update(changes)))
    lines = autoslim("search", "--latency", "90%", "-r", worked).stderr.splitlines()
    warned = [line for line in lines if line.startswith("warning: ") and "was measured" in line]
    assert len(warned) == bool(said)
    assert all(said in line and "`autoslim profile -r" in line for line in warned)


def test_a_measured_latency_that_breaks_the_budget_is_said(worked, synthetic, autoslim, monkeypatch):
    edited(synthetic, lambda table: table.update(check={**BAD, "rank_correlation": 0.99, "median_error": 0.03}))
    arguments = ("search", "--latency", "20us", "--latency-table", synthetic, "-r", worked)
    monkeypatch.setattr(answers, "time_found", lambda *_: 0.0199)
    assert "breaks" not in autoslim(*arguments).stderr
    monkeypatch.setattr(answers, "time_found", lambda *_: 0.020001)  # by 0.0%, as it would be told
    assert "breaks" not in autoslim(*arguments).stderr
    monkeypatch.setattr(answers, "time_found", lambda *_: 0.0203)
    (line,) = [line for line in autoslim(*arguments).stderr.splitlines() if "breaks" in line]
    assert line.startswith("warning: ")
    assert "measured 20.3us, which breaks latency<=20us (20us) by 1.5%" in line


def test_activation_memory_alone(worked, autoslim_json):
    (found,) = autoslim_json("search", "--activation-memory", "60%", "-r", worked)["configs"]
    config = json.loads((worked / "arch-activation-memory-60pct.json").read_text())
    assert config["cost"]["activation_memory"] == found["activation_memory"]
    assert config["found"]["binding"] == "activation_memory"


def edited(path, edit):
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))


def shorten(counts):
    """Let counts end just above the last but one, wherever a grid was refined."""
    counts[-1] = counts[-2] + 1


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t["layers"][0]["ms"].__setitem__(0, 0.0), ["conv1", "0.0 ms", "measure the layer again"]),
        (lambda t: t["layers"][0]["ms"].__setitem__(0, -1.5), ["-1.5 ms"]),
        (lambda t: t["layers"][0]["ms"].pop(), ["times for", "points"]),
        (lambda t: t["layers"][0].update(cold_ms=[-1.0] * len(t["layers"][0]["ms"])), ["conv1", "cannot add -1.0 ms"]),
        (lambda t: t["correction"].update(cold=0.5), ["correction", "cold needs cached_mweights"]),
        (
            lambda t: t["correction"].update(cold=-0.5, cached_mweights=1.0),
            ["correction.cold", "greater than or equal"],
        ),
        (lambda t: t["correction"].update(other=-0.3), ["correction.other", "greater than or equal"]),
        (lambda t: t["correction"].update(constant_ms=float("nan")), ["correction.constant_ms", "finite"]),
        (lambda t: t.update(fitted=[{"channels": {}, "ms": [0.0]}]), ["fitted", "greater than 0"]),
        (
            lambda t: t["model"].update(args={"depth": 50}),
            ["the table is of autoslim/cifar_resnet", "autoslim profile"],
        ),
        (
            lambda t: t.update(network="sha256:0"),
            ["is another network than when the table was made", "autoslim profile"],
        ),
        (lambda t: t["layers"].pop(), ["1 of", "layer shapes are missing", "autoslim profile"]),
        (lambda t: shorten(t["layers"][2]["counts"][0]), ["was measured at", "autoslim profile"]),
        (lambda t: t["layers"][2]["counts"][0].reverse(), ["must ascend"]),
        (
            lambda t: t.update(format="autoslim.latency/9"),
            ["a latency table of another version, autoslim.latency/9 and not autoslim.latency/1"],
        ),
        (lambda t: t.update(layerz=[]), ["layerz", "did you mean layers?"]),
    ],
)
def test_tables_that_cannot_be(worked, synthetic, refuse, edit, words):
    edited(synthetic, edit)
    line = refuse(4, "search", "--latency", "50%", "--latency-table", synthetic, "-r", worked)
    assert all(word in line for word in words), line


def test_every_command_refuses_a_table_of_another_network(worked, synthetic, refuse):
    """`info` and `compare` predicted by it, where `search` refused it."""
    edited(synthetic, lambda table: table.update(network="sha256:other"))
    arch = worked / "arch-60pct.json"
    for words in (("search", "--latency", "50%", "-r", worked), ("info", arch), ("compare", arch)):
        line = refuse(4, *words, "--latency-table", synthetic)
        assert "is another network than when the table was made" in line


def test_what_latency_needs(worked, synthetic, refuse, autoslim):
    assert "no latency table of this machine" in refuse(4, "search", "--latency", "50%", "-r", worked)
    assert "latency-phone.json" in refuse(4, "search", "--latency", "50%", "-r", worked)
    line = refuse(2, "search", "--flops", "50%", "--latency-table", synthetic, "-r", worked)
    assert "--latency 12ms" in line
    line = refuse(2, "search", "--latency", "12", "--latency-table", synthetic, "-r", worked)
    assert "12ms" in line
    line = refuse(3, "search", "--latency", "1us", "--latency-table", synthetic, "-r", worked)
    assert "out of reach" in line
    assert "ms) predicted latency" in line or "us) predicted latency" in line
    other = ("model.args={depth: 14, in_channels: 1, width: 8}", "supernet.width=1.5")
    line = refuse(4, "search", "--latency", "50%", "--latency-table", synthetic, "-r", worked, *other)
    assert "the table is of autoslim/cifar_resnet" in line or "trained for another" in line
    # A table of another machine does not pass for this one's.
    synthetic.rename(worked / table_name(local_device(torch.device("cpu"), "eager", "fp32", 1, True)))
    assert "not this machine" in refuse(4, "search", "--latency", "50%", "-r", worked)


@pytest.fixture
def suite(worked, autoslim, autoslim_json, tmp_path):
    pytest.importorskip("onnxruntime")
    directory = tmp_path / "suite"
    result = autoslim_json("export", "--latency-suite", directory, "--networks", "4", "-r", worked)
    manifest = json.loads((directory / "manifest.json").read_text())
    named = [file for layer in manifest["layers"] for file in layer["files"]]
    named += [network["file"] for network in manifest["networks"]]
    assert sorted(named) == sorted(str(path.relative_to(directory)) for path in directory.rglob("*.onnx"))
    assert result["files"] == len(named)
    return directory


def test_a_suite_goes_to_a_device_and_comes_back(worked, suite, autoslim_json):
    runner = Path(__file__).parents[2] / "benchmarks" / "run_suite.py"
    command = [sys.executable, runner, suite, "--device", "this board"]
    subprocess.run(command, check=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})
    result = autoslim_json("profile", "--import", suite, "-r", worked)
    table = read_table(worked / "latency-this-board.json")
    assert result["path"].endswith("latency-this-board.json")
    assert (len(table.fitted), len(table.checked), table.device.engine) == (2, 2, "imported")
    edited(worked / "latency-this-board.json", falling)
    arguments = ("search", "--latency", "70%", "--latency-table", worked / "latency-this-board.json", "-r", worked)
    (found,) = autoslim_json(*arguments)["configs"]
    assert "measured_latency" not in found


def test_a_suite_that_cannot_be_written_or_measured_is_refused(worked, suite, refuse):
    (worked / "file").write_text("")
    for directory in (worked / "file", worked / "file" / "below", "/proc/suite"):
        assert "another directory" in refuse(2, "export", "--latency-suite", directory, "-r", worked)
    for option in (("--engine", "eager"), ("--batch", "2"), ("--threads", "1"), ("--resume",)):
        assert f"leave {option[0]} out" in refuse(2, "profile", "--import", suite, *option, "-r", worked)


def test_times_that_cannot_be(worked, suite, refuse, autoslim):
    assert "times.json" in refuse(4, "profile", "--import", suite, "-r", worked)
    manifest = json.loads((suite / "manifest.json").read_text())
    files = [file for layer in manifest["layers"] for file in layer["files"]]
    files += [network["file"] for network in manifest["networks"]]
    for ms, words in (({}, ["no time for", "layers/000"]), (dict.fromkeys(files, 0.0), ["cannot take 0.0 ms"])):
        (suite / "times.json").write_text(json.dumps({"suite": manifest["id"], "device": {"name": "x"}, "ms": ms}))
        line = refuse(4, "profile", "--import", suite, "-r", worked)
        assert all(word in line for word in words), line
    # A runner that measures networks once says nothing of how well the device repeats itself.
    times = {"suite": manifest["id"], "device": {"name": "x"}, "ms": {file: 1.0 + 1e-6 * len(file) for file in files}}
    (suite / "times.json").write_text(json.dumps(times))
    assert "repeatability" not in autoslim("profile", "--import", suite, "-r", worked).stdout
    assert read_table(worked / "latency-x.json").check.repeatability is None
    # Times of another suite are not of these files.
    autoslim("export", "--latency-suite", suite, "--networks", "4", "--batch", "2", "-r", worked)
    assert "run this suite" in refuse(4, "profile", "--import", suite, "-r", worked)
    edited(suite / "times.json", lambda t: t.update(suite=json.loads((suite / "manifest.json").read_text())["id"]))
    other = "model.args={depth: 14, in_channels: 1, width: 8}"
    assert "a suite of autoslim/cifar_resnet at" in refuse(4, "profile", "--import", suite, "-r", worked, other)
    # The same name on other terms is another device.
    assert "which is not device-imported-batch-2 of x" in refuse(2, "profile", "--import", suite, "-r", worked)
    # What was there is kept.
    (worked / "latency-x.json").write_text("made by hand")
    said = autoslim("profile", "--import", suite, "-r", worked).stderr
    assert "latency-x.json: the one that was there is kept as latency-x.old-1.json" in said
    assert (worked / "latency-x.old-1.json").read_text() == "made by hand"
    edited(suite / "manifest.json", lambda m: m["layers"][0]["files"].reverse())
    assert "changed since it was written" in refuse(4, "profile", "--import", suite, "-r", worked)


def test_a_table_of_tied_units_predicts_their_networks(worked, quick, autoslim, autoslim_json):
    tied = "space.tie=[[conv1, layer1.0.conv1]]"
    autoslim("train-supernet", "-r", worked, tied, "--force")
    autoslim("profile", "-r", worked, tied)
    (found,) = autoslim_json("search", "--flops", "60%", "-r", worked, tied)["configs"]
    config = json.loads(Path(found["path"]).read_text())
    assert config["channels"]["conv1"] == config["channels"]["layer1.0.conv1"]
    latency = autoslim_json("info", found["path"], "--latency-table", table_of(worked))["latency"]
    assert latency["predicted_ms"] > 0


def test_onnx_runtime_is_an_engine(worked, quick, autoslim_json, refuse):
    pytest.importorskip("onnxruntime")
    before = torch.get_num_threads()
    try:
        settings = ("--threads", "1", "--batch", "2")
        result = autoslim_json("profile", "--engine", "onnxruntime", *settings, "-r", worked)
    finally:
        torch.set_num_threads(before)
    assert result["path"].endswith("latency-cpu-1-thread-onnxruntime-batch-2.json")
    device = {key: result["device"][key] for key in ("engine", "threads", "batch")}
    assert device == {"engine": "onnxruntime", "threads": 1, "batch": 2}
    assert "fp32" in refuse(2, "profile", "--engine", "onnxruntime", "--dtype", "fp16", "-r", worked)
