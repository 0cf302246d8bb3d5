"""Strategies that compete by a short training, and slimming by magnitude."""

import json
from pathlib import Path

import torch

from autoslim_cli.models.built_in import cifar_resnet
from autoslim_cli.network.trace import read
from autoslim_cli.slimming.importance import importance
from autoslim_cli.slimming.trained_weights import sort_channels
from autoslim_cli.training import checkpointing


def config_of(result):
    return json.loads(Path(result["configs"][0]["path"]).read_text())


def test_importance_is_large_where_weights_are():
    network = cifar_resnet(5, depth=8, width=8)
    table = read(network, (3, 8, 8)).table
    with torch.no_grad():
        network.layer1[0].conv1.weight[5] *= 100  # makes channel 5
        network.layer2[0].conv2.weight[:, 3] *= 100  # reads channel 3 of layer2.0.conv1
    found = importance(network, table, table.base)
    assert found["layer1.0.conv1"].argmax() == 5
    assert found["layer2.0.conv1"].argmax() == 3
    for unit in table.free:
        assert found[unit.name].shape == (unit.base,)
        torch.testing.assert_close(found[unit.name].mean(), torch.tensor(1.0))
    sort_channels(network, table)
    for values in importance(network, table, table.base).values():
        assert (values.diff() <= 1e-5).all()


def test_magnitude_takes_small_weights_first(autoslim_json, worked):
    found = autoslim_json("search", "--flops", "50%", "-r", worked, "search.strategy=magnitude", "search.fill=0")
    config = config_of(found)
    assert config["found"]["strategy"] == "magnitude"
    assert found["evaluations"] == 1  # the answer's own score
    assert config["channels"] != config_of(autoslim_json("search", "--flops", "50%", "-r", worked))["channels"]


def test_the_best_after_a_trial_is_the_answer(autoslim, autoslim_json, worked):
    settings = ("search.rivals=[magnitude,uniform]", "retrain.lr=0.01")
    found = autoslim_json("search", "--flops", "50%", "-r", worked, *settings)
    rows = [json.loads(line) for line in (worked / "search.jsonl").read_text().splitlines()]
    trials = {tuple(row["trial"]): row["loss"] for row in rows if "trial" in row}
    assert 2 <= len(trials) <= 3
    config = config_of(found)
    units = list(rows[0]["largest"]["channels"])
    best = dict(zip(units, min(trials, key=trials.__getitem__), strict=True))
    assert {name: config["channels"][name] for name in units} == best
    assert config["found"]["strategy"] in ("lazy", "magnitude", "uniform")
    # What was tried is not trained again, until what a trial depends on changes.
    before = (worked / "search.jsonl").read_text()
    again = autoslim("search", "--flops", "50%", "-r", worked, *settings, "--resume")
    assert "training 1 epochs" not in again.stderr
    assert (worked / "search.jsonl").read_text() == before
    autoslim(
        "search", "--flops", "50%", "-r", worked, "search.rivals=[magnitude,uniform]", "retrain.lr=0.02", "--resume"
    )
    assert (worked / "search.jsonl").read_text().count('"trial"') == 2 * before.count('"trial"')
    assert not list(worked.glob("trial*"))


def test_a_trial_takes_the_memory_that_retraining_may_take(autoslim, refuse, worked, monkeypatch):
    """Its scores are the same to the bit where blocks are computed anew, and a step that does not fit is refused."""
    checkpointed, calls, trials = checkpointing.checkpointed, [], []
    monkeypatch.setattr(checkpointing, "checkpointed", lambda *given: calls.append(given) or checkpointed(*given))
    command = ("search", "--flops", "50%", "-r", worked, "search.strategy=uniform", "search.rivals=[magnitude]")
    for lean in (False, True):
        said = autoslim(*command, "retrain.lr=0.01", f"retrain.activation_checkpointing={lean}").stderr
        assert said.count("a step takes about") == 2
        assert len(calls) == 2 * lean
        rows = [json.loads(line) for line in (worked / "search.jsonl").read_text().splitlines()]
        trials.append([(row["trial"], row["loss"]) for row in rows if "trial" in row])
    assert trials[0] == trials[1]
    monkeypatch.setattr("autoslim_cli.training.loop.free_memory", lambda *_: 2**10)
    assert "retrain.batch: a step over 64 images at a time" in refuse(2, *command)
    monkeypatch.setattr("autoslim_cli.training.loop.free_memory", lambda *_: 2**20)
    line = refuse(2, *command, "retrain.micro_batch=4", "calibrate.batch=256", "evaluate.batch=16")
    assert "calibrate.batch: a forward pass over 256 images" in line
