"""Networks side by side: costs, what was measured, and the channels that differ."""

import json
import re
import shutil

import yaml

from autoslim_cli.files.channel_config import read_config
from autoslim_cli.models.zoo import build
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.schema import ModelSettings


def test_files_of_one_recipe_stand_beside_their_base_network(worked, autoslim_json):
    arch, model = worked / "arch-30pct.json", worked / "model-60pct.safetensors"
    result = autoslim_json("compare", arch, model, worked / "supernet.safetensors")
    base, found, retrained, supernet = result["networks"]
    assert [row["kind"] for row in result["networks"]] == ["base", "config", "retrained", "supernet"]
    config = read_config(arch)
    assert (found["flops"], found["params"]) == (config.cost.flops, config.cost.params)
    assert found["flops"] < retrained["flops"] < base["flops"] < supernet["flops"]
    assert 0 < found["activation_memory"] < supernet["activation_memory"]
    assert found["top1"] == {"holdout": config.found.top1}
    assert set(retrained["top1"]) == {"test"}
    assert set(supernet["top1"]) == {"holdout"}
    assert found["source"].endswith(config.found.budget)
    assert found["channels"] == config.channels
    for unit, counts in result["differ"].items():
        assert counts == [row["channels"][unit] for row in result["networks"]]
        assert len(set(counts)) > 1
    same = [unit for unit in base["channels"] if unit not in result["differ"]]
    assert all(len({row["channels"][unit] for row in result["networks"]}) == 1 for unit in same)


def test_what_comes_next_is_to_deploy_what_is_trained_or_to_train_what_is_not(worked, autoslim):
    arch, model = worked / "arch-30pct.json", worked / "model-60pct.safetensors"
    assert f"export --onnx {model}" in autoslim("compare", arch, model).stderr
    assert f"retrain {arch}" in autoslim("compare", arch, worked / "arch-60pct.json").stderr


def test_the_tables_as_text_and_as_markdown(worked, autoslim, refuse):
    arch = worked / "arch-30pct.json"
    text = autoslim("compare", arch, worked / "arch-60pct.json").stdout
    assert "Channels that differ" in text
    assert "holdout top-1" in text
    lines = autoslim("compare", arch, worked / "arch-60pct.json", "--markdown").stdout.splitlines()
    tables = [line for line in lines if line]
    assert tables[0].startswith("| network | kind | FLOPs | params | activations | holdout top-1 |")
    assert tables[1] == "| --- |" + " ---: |" * 5
    assert re.search(r"\| 1  .*arch-30pct\.json \| config \| [\d,]+ \(\d\d%\) \|", tables[3])
    assert len({line.count("|") for line in tables[:5]}) == 1
    assert "name one" in refuse(2, "compare", arch, "--json", "--markdown")


def test_a_model_is_one_in_whatever_order_its_arguments_come(worked, autoslim_json):
    """A checkpoint's facts are sorted, a recipe's are as they were written."""
    path = worked / "arch-30pct.json"
    config = json.loads(path.read_text())
    config["model"]["args"] = dict(reversed(config["model"]["args"].items()))
    path.write_text(json.dumps(config))
    rows = autoslim_json("compare", path, worked / "model-60pct.safetensors")["networks"]
    assert [row["kind"] for row in rows] == ["base", "config", "retrained"]


def test_networks_of_two_models(worked, autoslim_json):
    """Each model has a base network of its own; units that one of them lacks are left open."""
    config = json.loads((worked / "arch-30pct.json").read_text())
    deeper = {**config["model"], "args": {**config["model"]["args"], "depth": 14}}
    settings = ModelSettings.model_validate(deeper)
    base = read(build(settings, worked), settings.input).table.base
    path = worked / "arch-deeper.json"
    path.write_text(json.dumps({"format": config["format"], "model": deeper, "channels": base}))
    result = autoslim_json("compare", worked / "arch-30pct.json", path)
    assert [row["kind"] for row in result["networks"]] == ["base", "config", "base", "config"]
    assert any(None in counts for counts in result["differ"].values())


def test_code_of_two_recipes_is_two_models(without_norms, tmp_path, autoslim_json):
    """Both name `./net.py:make`, and the first one's network was taken for both."""
    other = shutil.copytree(without_norms, tmp_path / "other")
    code = (other / "net.py").read_text()
    (other / "net.py").write_text(
        code.replace("nn.Conv2d(1, width, 3, padding=1)", "nn.Conv2d(1, width, 5, padding=2)")
    )
    files = [directory / "arch-mine.json" for directory in (without_norms, other)]
    channels = {"0": 4, "2": 4, "4": 8}
    for path in files:
        model = yaml.safe_load((path.parent / "recipe.yaml").read_text())["model"]
        path.write_text(json.dumps({"format": "autoslim.channels/1", "model": model, "channels": channels}))
    alone = [autoslim_json("info", path) for path in files]
    rows = autoslim_json("compare", *files)["networks"]
    assert [row["kind"] for row in rows] == ["base", "config", "base", "config"]
    assert [row["flops"] for row in rows[1::2]] == [one["flops"] for one in alone]
    assert [row["flops"] for row in rows[::2]] == [one["base"]["flops"] for one in alone]
    assert len({row["flops"] for row in rows}) == 4


def test_what_cannot_be_compared_is_named(worked, refuse, tmp_path):
    arch = worked / "arch-30pct.json"
    config = json.loads(arch.read_text())
    config["cost"]["flops"] += 1
    (worked / "wrong.json").write_text(json.dumps(config))
    assert "correct cost" in refuse(4, "compare", arch, worked / "wrong.json")
    assert "no such channel config" in refuse(4, "compare", tmp_path / "none.json")
