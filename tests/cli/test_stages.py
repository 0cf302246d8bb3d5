"""Every stage through its command: what it prints, what it writes, what it records."""

import json
from pathlib import Path

import pytest
import safetensors
import torch

import autoslim_cli
from autoslim_cli.cost.budget import parse_many
from autoslim_cli.files.atomic import sha256
from autoslim_cli.progress import Reporter
from autoslim_cli.recipe.loading import load_recipe
from autoslim_cli.stages.project import open_project
from autoslim_cli.stages.run import uniform_channels


def facts_of(path):
    with safetensors.safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["autoslim"])


def test_train_supernet_reports_three_widths_and_records_its_origin(autoslim_json, recipe):
    result = autoslim_json("train-supernet", "-r", recipe)
    widths = result["widths"]
    assert list(widths) == ["largest", "base", "smallest"]
    assert widths["largest"]["flops"] > widths["base"]["flops"] > widths["smallest"]["flops"]
    assert widths["largest"]["top1"] > 0.4  # chance is 0.1
    facts = facts_of(result["supernet"])
    assert facts["format"] == "autoslim.supernet/1"
    assert facts["made_from"]["recipe"]["train"]["epochs"] == 3
    assert facts["made_from"]["recipe"]["seed"] == 0
    assert facts["made_from"]["versions"]["torch"] == torch.__version__
    assert sorted(entry.name for entry in recipe.iterdir()) == [
        "recipe.yaml",
        "supernet.metrics.jsonl",
        "supernet.safetensors",
    ]


def test_overrides_reach_the_stage_and_the_record(autoslim, recipe):
    autoslim("train-supernet", "-r", recipe, "train.epochs=1", "supernet.samples=2", "seed=7")
    made_from = facts_of(recipe / "supernet.safetensors")["made_from"]["recipe"]
    assert (made_from["train"]["epochs"], made_from["supernet"]["samples"], made_from["seed"]) == (1, 2, 7)


def test_the_first_stage_refuses_to_overwrite_a_stopped_training(refuse, recipe):
    (recipe / "supernet.resume.pt").write_bytes(b"hours of work")
    assert "--resume to continue it, or --force to give it up" in refuse(2, "train-supernet", "-r", recipe)
    assert (recipe / "supernet.resume.pt").read_bytes() == b"hours of work"


def test_search_writes_a_config_for_every_budget(autoslim_json, worked):
    before = (worked / "arch-60pct.json").read_bytes()
    result = autoslim_json("search", "--flops", "60%,30%", "-r", worked)
    assert [config["budget"] for config in result["configs"]] == ["flops<=60%", "flops<=30%"]
    assert result["evaluations"] > 0
    assert result["seconds"] >= 0
    base = autoslim_json("info", worked / "arch-60pct.json")["base"]["flops"]
    for config, share in zip(result["configs"], (0.6, 0.3), strict=True):
        assert set(config) >= {"path", "budget", "flops", "params", "loss", "top1"}
        assert config["flops"] <= share * base
        written = json.loads((worked / config["path"].rsplit("/", 1)[-1]).read_text())
        assert written["cost"]["flops"] == config["flops"]
        assert written["found"]["supernet"] == sha256(worked / "supernet.safetensors")
        assert written["found"]["holdout"] == {"images": 150, "seed": 0}
    assert (worked / "arch-60pct.json").read_bytes() == before  # the same search finds the same channels


def test_the_log_says_each_step(worked):
    header, *rows = map(json.loads, (worked / "search.jsonl").read_text().splitlines())
    assert header["format"] == "autoslim.search/3"
    assert header["recipe"]["search"]["batch"] == 75
    steps = [row for row in rows if "step" in row]
    scorings = [row for row in rows if "scored" in row]
    assert sum(step["evaluations"] for step in steps) == sum(len(row["scored"]) for row in scorings)
    # Slimming steps follow each other; what a met budget is filled with follows it, and is not slimmed further.
    path, flops, number = dict(header["largest"]["channels"]), header["largest"]["flops"], 0
    filled = path
    for step in steps:
        number += step["kind"] == "slim"
        assert step["step"] == number
        if step["kind"] == "slim":
            assert step["before"] == path[step["unit"]] > step["after"]
            assert step["flops"] < flops
            path = filled = {**path, step["unit"]: step["after"]}
            flops = step["flops"]
        else:
            # One unit takes channels back; or, where none alone fits, one gives a quantum and another takes one.
            assert step["kind"] == "fill"
            changes = step.get("changes") or [[step["unit"], step["before"], step["after"]]]
            assert all(before == filled[unit] for unit, before, _ in changes)
            assert any(after > before for _, before, after in changes)
            filled = {**filled, **{unit: after for unit, _, after in changes}}
    assert number > 5
    assert filled == json.loads((worked / "arch-30pct.json").read_text())["channels"]


def test_search_goes_down_from_a_logged_search(autoslim_json, worked):
    steps = len((worked / "search.jsonl").read_text().splitlines())
    result = autoslim_json("search", "--flops", "60%,20%", "-r", worked, "--resume")
    assert len(result["configs"]) == 2
    rows = [json.loads(line) for line in (worked / "search.jsonl").read_text().splitlines()]
    budgets = [row["run"]["budgets"] for row in rows if "run" in row]
    assert budgets == [["flops<=60%", "flops<=30%"], ["flops<=60%", "flops<=20%"]]
    scored = [(row["draw"], str(row["at"]), str(one[0])) for row in rows if "scored" in row for one in row["scored"]]
    assert len(scored) == len(set(scored))  # the second run scored nothing again
    assert len(rows) > steps
    straight = (worked / "arch-20pct.json").read_bytes()
    autoslim_json("search", "--flops", "20%", "-r", worked)
    assert (worked / "arch-20pct.json").read_bytes().replace(b"flops", b"") == straight.replace(b"flops", b"")


def test_search_says_its_plan_first(autoslim, worked):
    (worked / "search.jsonl").unlink()
    said = autoslim("search", "--flops", "50%", "-r", worked).stderr.splitlines()
    assert said[0].startswith("space: 6 units, 10^")
    assert "FLOPs" in said[0]
    assert "lazy: about" in said[1]
    assert "evaluations on 150 holdout images" in said[1]


def test_top1_may_score_the_search(autoslim_json, worked):
    """Each step takes the candidate that keeps top-1 best, also where another keeps the loss better."""
    settings = ["search.score=top1", "search.strategy=exact", "search.per_flop=false"]
    autoslim_json("search", "--flops", "50%", "-r", worked, *settings)
    at, scored, against_loss = None, {}, 0
    for row in map(json.loads, (worked / "search.jsonl").read_text().splitlines()[1:]):
        if "scored" in row:
            scored = scored if row["at"] == at else {}
            at = row["at"]
            scored |= {tuple(one.items()): (loss, top1) for one, loss, top1 in row["scored"] if one}
        elif row.get("kind") == "slim":
            loss, top1 = scored[((row["unit"], row["after"]),)]
            assert top1 == max(top1 for _, top1 in scored.values())
            against_loss += loss > min(loss for loss, _ in scored.values())
    assert against_loss


@pytest.mark.parametrize("strategy", ["exact", "random", "uniform"])
def test_every_strategy_finds_channels(autoslim_json, worked, strategy):
    settings = ["-r", worked, f"search.strategy={strategy}", "search.draws=5"]
    result = autoslim_json("search", "--flops", "60%,30%", *settings)
    assert result["strategy"] == strategy
    assert result["evaluations"] >= {"exact": 60, "random": 10, "uniform": 2}[strategy]
    assert result["multiply_adds"] > 0
    assert result["rate"] > 0
    assert result["forward_rate"] > 0
    for config, share in zip(result["configs"], (0.6, 0.3), strict=True):
        found = autoslim_json("info", config["path"])
        assert found["fvcore_flops"] == config["flops"] <= share * found["base"]["flops"]
        assert json.loads(Path(config["path"]).read_text())["found"]["strategy"] == strategy


def test_a_budget_of_parameters_and_flops(autoslim_json, worked):
    result = autoslim_json("search", "--flops", "60%,50%", "--params", "40%", "-r", worked)
    assert [config["budget"] for config in result["configs"]] == [
        "flops<=60% and params<=40%",
        "flops<=50% and params<=40%",
    ]
    for config in result["configs"]:
        facts = autoslim_json("info", config["path"])
        assert config["flops"] <= 0.6 * facts["base"]["flops"]
        assert config["params"] <= 0.4 * facts["base"]["params"]
        found = json.loads(Path(config["path"]).read_text())["found"]
        shares = {"flops": config["flops"] / facts["base"]["flops"] / (0.6 if "60" in config["budget"] else 0.5)}
        shares["params"] = config["params"] / facts["base"]["params"] / 0.4
        assert found["binding"] == max(shares, key=shares.get)
    assert (worked / "arch-60pct-params-40pct.json").exists()


def test_backfill_refine_and_other_images_at_each_step(autoslim_json, worked):
    settings = ["search.fill=0.98", "search.refine=3", "search.draw=anew", "search.images=75", "search.batch=50"]
    plain = autoslim_json("search", "--flops", "60%,30%", "-r", worked, *settings[2:])
    better = autoslim_json("search", "--flops", "60%,30%", "-r", worked, *settings)
    for one, other in zip(plain["configs"], better["configs"], strict=True):
        assert other["loss"] <= one["loss"]  # both on all 150 images
    rows = [json.loads(line) for line in (worked / "search.jsonl").read_text().splitlines()]
    draws = {row["draw"] for row in rows if "scored" in row}
    assert {0, 1, 2, 3} <= draws
    followed = [row for row in rows if row.get("kind") in ("fill", "move")]
    assert followed
    assert {row["budget"] for row in followed} <= {"flops<=60%", "flops<=30%"}
    assert [row["answer"] for row in rows if "answer" in row] == ["flops<=60%", "flops<=30%"]
    assert rows[0]["holdout"] == 150


def test_memory_splits_the_batch_and_says_so(autoslim, worked):
    whole = autoslim("search", "--flops", "60%", "-r", worked, "search.batch=150").stderr
    assert "images at a time" not in whole
    said = autoslim("search", "--flops", "60%", "-r", worked, "search.batch=150", "search.memory=0.002").stderr
    assert "images at a time, not 150" in said
    header = json.loads((worked / "search.jsonl").read_text().splitlines()[0])
    assert 1 < header["most_images"] < 150
    assert header["holdout"] > 140  # equal batches leave out next to nothing
    again = autoslim("search", "--flops", "60%", "-r", worked, "search.batch=150", "search.memory=0.002", "--resume")
    assert "the log holds" in again.stderr
    assert json.loads((worked / "search.jsonl").read_text().splitlines()[0]) == header


def test_a_search_takes_the_threads_of_its_log(autoslim, worked):
    own = torch.get_num_threads()
    log = worked / "search.jsonl"
    header, *rest = log.read_text().splitlines(keepends=True)
    facts = json.loads(header)
    assert facts["ran_on"] == {"device": "cpu", "threads": own}
    facts["ran_on"]["threads"] = own + 1
    log.write_text(json.dumps(facts) + "\n" + "".join(rest))
    said = autoslim("search", "--flops", "60%,30%", "-r", worked, "--resume").stderr
    assert f"scoring with {own + 1} threads" in said
    assert torch.get_num_threads() == own


def test_another_strategy_takes_over_scores(autoslim_json, worked):
    first = autoslim_json("search", "--flops", "60%", "-r", worked, "search.strategy=exact")
    again = autoslim_json("search", "--flops", "60%", "-r", worked, "--resume")
    assert again["strategy"] == "lazy"
    rows = [json.loads(line) for line in (worked / "search.jsonl").read_text().splitlines()]
    assert sum(len(row["scored"]) for row in rows if "scored" in row) < first["evaluations"] + again["evaluations"]


def test_smaller_batches_score_nearly_alike(autoslim_json, worked):
    """BN statistics of a part stand in for those of all images where memory is short: a stated approximation."""
    uniform = ("search", "--flops", "60%", "-r", worked, "search.strategy=uniform")
    losses = {b: autoslim_json(*uniform, f"search.batch={b}")["configs"][0]["loss"] for b in (150, 50)}
    assert 0 < abs(losses[150] - losses[50]) < 0.05


def test_half_precision_scores(autoslim_json, worked):
    half = autoslim_json("search", "--flops", "60%", "-r", worked, "search.precision=bf16")["configs"][0]
    full = autoslim_json("search", "--flops", "60%", "-r", worked)["configs"][0]
    assert abs(half["loss"] - full["loss"]) < 0.1
    assert half["loss"] != full["loss"]


def test_calibrated_sub_networks_are_deployable(autoslim_json, worked):
    rows = autoslim_json("calibrate-bn", "--widths", "0.5:1.5:0.5", "--channels", worked / "arch-30pct.json")
    rows = rows["subnetworks"]
    assert [row["name"] for row in rows] == ["width-0.5", "width-1", "width-1.5", "30pct"]
    assert rows[2]["top1"] > 0.4
    network, config = autoslim_cli.load_model(worked / "subnet-30pct.safetensors")
    assert config.cost.flops == rows[3]["flops"]
    assert sum(p.numel() for p in network.parameters()) == rows[3]["params"]
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    parents = facts_of(worked / "subnet-30pct.safetensors")["made_from"]["parents"]
    assert parents == {"supernet.safetensors": sha256(worked / "supernet.safetensors")}


def test_retrain_finds_the_recipe_beside_the_config(autoslim_json, worked):
    result = autoslim_json("retrain", worked / "arch-30pct.json")
    assert result["path"] == str(worked / "model-30pct.safetensors")
    assert result["top1"] > 0.2
    again = autoslim_json("evaluate", worked / "model-30pct.safetensors")
    assert {key: again[key] for key in ("top1", "loss", "flops", "params")} == {
        key: result[key] for key in ("top1", "loss", "flops", "params")
    }
    parents = facts_of(result["path"])["made_from"]["parents"]
    assert parents == {"arch-30pct.json": sha256(worked / "arch-30pct.json")}


@pytest.mark.parametrize(
    ("options", "name"), [(["--width", "0.5"], "width-0.5"), (["--uniform-flops", "50%"], "uniform-50pct")]
)
def test_uniform_baselines(autoslim_json, recipe, options, name):
    result = autoslim_json("retrain", *options, "-r", recipe, "retrain.epochs=1")
    assert result["path"] == str(recipe / f"model-{name}.safetensors")
    facts = autoslim_json("info", result["path"])
    assert facts["flops"] == facts["fvcore_flops"] == result["flops"] <= facts["base"]["flops"] / 2


def test_a_config_by_hand_may_be_wider_than_the_supernet(autoslim_json, worked):
    config = json.loads((worked / "arch-60pct.json").read_text())
    hand = {key: config[key] for key in ("format", "model", "channels")}
    hand["channels"]["conv1"] = 40
    (worked / "wide.json").write_text(json.dumps(hand))
    assert autoslim_json("retrain", worked / "wide.json", "retrain.epochs=1")["path"].endswith("model-wide.safetensors")


def test_run_ends_in_a_table_and_a_page(autoslim_json, worked):
    result = autoslim_json("run", "--flops", "60%", "-r", worked)
    base, searched, uniform = result["networks"]
    assert [row["network"] for row in result["networks"]] == ["base", "searched", "uniform"]
    assert "top1" not in base
    for row in (searched, uniform):
        assert row["budget"] == "flops<=60%"
        assert row["used"] == pytest.approx(row["flops"] / int(0.6 * base["flops"]))
        assert 0.98 <= row["used"] <= 1
    assert (worked / "report.html").is_file()
    assert result["page"] == str(worked / "report.html")
    assert json.loads((worked / "report.json").read_text())["networks"] == result["networks"]


def test_run_says_how_much_was_lost(autoslim, autoslim_json, worked):
    said = autoslim("run", "--flops", "60%", "-r", worked)
    assert "not trained" in said.stdout
    assert "--retrain-base" in said.stderr
    base, *_ = autoslim_json("run", "--flops", "60%", "-r", worked, "--retrain-base")["networks"]
    assert base["flops"] == autoslim_json("info", worked / "arch-60pct.json")["base"]["flops"]
    assert (base["epochs"], base["start"]) == (3, "scratch")
    assert base["top1"] == autoslim_json("evaluate", base["path"])["top1"]
    # It is the network of width 1, and there is one of it.
    said = autoslim("retrain", "--width", "1", "-r", worked, "--resume").stderr
    assert "is there and current" in said
    table = autoslim("run", "--flops", "60%", "-r", worked, "--retrain-base").stdout
    assert "not trained" not in table
    assert f"{base['top1']:.2%}" in table


def test_a_base_network_that_the_supernet_lacks_cannot_start_from_it(refuse, recipe):
    narrow = ("-r", recipe, "supernet.width=0.75", "--from", "supernet", "--retrain-base")
    assert "the supernet has 6 channels of conv1" in refuse(2, "run", "--flops", "20%", *narrow)
    assert not list(recipe.glob("*.safetensors"))


def test_the_uniform_network_fills_the_budget_and_not_what_was_found(autoslim_json, worked):
    """A search that wastes its budget was compared with a uniform network of as few FLOPs."""
    budgets = ("--flops", "55%", "-r", worked)
    _, searched, uniform = autoslim_json("run", *budgets, "search.fill=0", "retrain.epochs=1")["networks"]
    assert searched["used"] < 0.9 < uniform["used"]
    base = autoslim_json("info", worked / "arch-60pct.json")["base"]
    _, searched, uniform = autoslim_json("run", "--params", "60%", "-r", worked, "retrain.epochs=1")["networks"]
    for row in (searched, uniform):
        assert row["used"] == row["params"] / int(0.6 * base["params"])
        assert 0.98 <= row["used"] <= 1


def test_search_tables_show_the_budget_and_the_share_used(autoslim, autoslim_json, worked):
    budgets = ("--flops", "60%,30%", "-r", worked, "--resume")
    first, second = autoslim_json("search", *budgets)["configs"]
    table = autoslim("search", *budgets).stdout
    for row in (first, second):
        assert f"{row['budget']}  " in table
        assert f"{row['used']:.1%}" in table
        assert 0.9 < row["used"] <= 1


def test_run_skips_what_is_current_and_follows_what_changed(autoslim, worked):
    autoslim("run", "--flops", "60%", "-r", worked)
    made = {name: (worked / name).read_bytes() for name in ("supernet.safetensors", "model-60pct.safetensors")}
    said = autoslim("run", "--flops", "60%", "-r", worked).stderr
    assert said.count("is there and current") == 3  # the supernet and the two retrained networks
    assert made == {name: (worked / name).read_bytes() for name in made}
    said = autoslim("run", "--flops", "60%", "-r", worked, "retrain.epochs=1").stderr
    assert said.count("is there and current") == 1
    assert (worked / "model-60pct.safetensors").read_bytes() != made["model-60pct.safetensors"]


def test_settings_that_cannot_change_a_result_leave_it_current(autoslim, worked):
    made = (worked / "supernet.safetensors").read_bytes()
    said = autoslim("train-supernet", "-r", worked, "--resume", "train.save_minutes=3", "data.workers=9").stderr
    assert "is there and current" in said
    assert (worked / "supernet.safetensors").read_bytes() == made


def test_a_user_s_own_network_with_a_layer_under_two_names(autoslim_json, recipe):
    (recipe / "net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n"
        "        self.a = nn.Conv2d(1, 8, 3, padding=1)\n"
        "        self.b = nn.Conv2d(8, 8, 3, padding=1)\n"
        "        self.again, self.norm = self.b, nn.BatchNorm2d(8)\n"
        "        self.both = nn.Sequential(self.a, self.norm)\n"
        "        self.fc = nn.Linear(8, num_classes)\n"
        "    def forward(self, x):\n"
        "        return self.fc(self.again(self.b(self.both(x)).relu()).mean(axis=(2, 3)))\n"
    )
    (recipe / "recipe.yaml").write_text(
        (recipe / "recipe.yaml").read_text() + "base: {epochs: 1, batch: 64, lr: 0.01}\n"
    )
    own = ("-r", recipe, "model.name=./net.py:Net", "model.args={}", "train.epochs=1", "train.lr=0.01")
    own += ("supernet.width=1.0",)
    base = autoslim_json("train-base", *own)["path"]
    autoslim_json("train-supernet", *own)
    assert (
        autoslim_json("retrain", "--width", "1", "--from", base, *own, "retrain.epochs=1")["start"] == Path(base).name
    )
    (row,) = autoslim_json("calibrate-bn", "--widths", "0.5", *own)["subnetworks"]
    assert autoslim_cli.load_model(row["path"], recipe, trust=True)[0](torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_units_name_what_a_search_may_do(autoslim_json, recipe):
    units = autoslim_json("units", "-r", recipe)["units"]
    keys = {"name", "layers", "parts", "base", "supernet", "min", "step", "pinned", "capped"}
    assert [set(unit) for unit in units] == [keys] * 7
    assert units[0] == {
        **{"name": "conv1", "layers": ["conv1", "layer1.0.conv2"], "parts": {}},
        **{"base": 8, "supernet": 12, "min": 2, "step": 2, "pinned": None, "capped": None},
    }
    assert (units[-1]["name"], units[-1]["pinned"]) == ("fc", "the network's output")


HALVES = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(1, 12, 3), nn.Conv2d(12, 8, 1), nn.Conv2d(12, 4, 1)
        self.split, self.one, self.two = nn.Conv2d(12, 16, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(16, num_classes)

    def forward(self, x):
        x = self.stem(x)
        x = x + torch.cat([self.left(x), self.right(x)], 1)
        one, two = self.split(x).chunk(2, 1)
        return self.fc(torch.cat([self.one(one), self.two(two)], 1).mean((2, 3)))
"""


def test_units_that_share_a_layer_say_which_channels_of_it_are_theirs(autoslim, autoslim_json, recipe):
    (recipe / "net.py").write_text(HALVES)
    own = ("units", "-r", recipe, "model.name=./net.py:Net", "model.args={}")
    units = {unit["name"]: unit for unit in autoslim_json(*own)["units"]}
    assert units["stem"]["layers"] == ["stem", "left"]
    assert [units[name]["parts"] for name in ("stem", "right", "one")] == [
        *({"stem": [[0, 8]]}, {"stem": [[8, 12]]}, {})
    ]
    table = [" ".join(line.split()) for line in autoslim(*own).stdout.splitlines()]
    shown = {line.split()[0]: line for line in table[3:]}
    assert len(shown) == len(units)  # no two are called alike
    assert shown["stem"].endswith(" stem[0:8], left")
    assert shown["right"].endswith(" stem[8:12], right")
    assert shown["fc"].endswith(" fc; pinned: the network's output")
    assert shown["split"].endswith(" split")  # both halves are one unit: all of it


def test_the_table_of_units_names_some_layers_and_json_all(autoslim, autoslim_json, recipe):
    deep = ("units", "-r", recipe, "model.args.depth=38")
    (first, *_) = autoslim_json(*deep)["units"]
    assert len(first["layers"]) == 7
    line = next(line for line in autoslim(*deep).stdout.splitlines() if line.startswith("conv1 "))
    assert line.endswith(f"{', '.join(first['layers'][:4])} and 3 more")


def test_units_are_steered_by_patterns(autoslim_json, refuse, recipe):
    steering = ["space.pin=[layer3.*conv1]", "space.tie=[[layer2.0.conv1, layer2.0.conv2]]"]
    steering += ["space.min={conv1: 5}", "space.groups={layer1*: 3}", "space.divisor={layer3*: 8, '*': 2}"]
    units = {unit["name"]: unit for unit in autoslim_json("units", "-r", recipe, *steering)["units"]}
    assert units["layer3.0.conv1"]["pinned"] == "space.pin: layer3.*conv1"
    assert units["layer3.0.conv1"]["supernet"] == units["layer3.0.conv1"]["base"] == 32
    assert units["layer2.0.conv1"]["layers"] == ["layer2.0.conv1", "layer2.0.conv2", "layer2.0.shortcut.0"]
    assert "layer2.0.conv2" not in units
    assert units["conv1"]["min"] == 6
    assert units["layer1.0.conv1"]["step"] == 4
    assert units["layer3.0.conv2"]["step"] == 8
    result = autoslim_json("train-supernet", "-r", recipe, "train.epochs=1", *steering)
    (config,) = autoslim_json("search", "--flops", "70%", "-r", recipe, "train.epochs=1", *steering)["configs"]
    channels = json.loads((recipe / "arch-70pct.json").read_text())["channels"]
    assert channels["layer3.0.conv1"] == 32
    assert set(channels) == {*units, "layer2.0.conv2"}  # a network that is read without the recipe has it
    assert channels["layer2.0.conv2"] == channels["layer2.0.conv1"]
    # What was found is a plain network's, and comes back to the recipe that tied it.
    assert autoslim_json("info", recipe / "arch-70pct.json")["flops"] == config["flops"]
    assert autoslim_json("info", recipe / "supernet.safetensors")["flops"] == result["widths"]["largest"]["flops"]
    arguments = ("retrain", recipe / "arch-70pct.json", "retrain.epochs=1", *steering)
    retrained = autoslim_json(*arguments)
    network, _ = autoslim_cli.load_model(retrained["path"])
    assert sum(tensor.numel() for tensor in network.parameters()) == config["params"]
    assert autoslim_json(*arguments, "--resume") == retrained
    loose = json.loads((recipe / "arch-70pct.json").read_text())
    loose["channels"]["layer2.0.conv2"] += 2
    del loose["cost"]
    (recipe / "arch-loose.json").write_text(json.dumps(loose))
    assert "space.tie makes them equal" in refuse(2, "retrain", recipe / "arch-loose.json", *steering)
    assert config["flops"] < result["widths"]["largest"]["flops"]


def test_a_supernet_starts_from_trained_weights(autoslim, autoslim_json, worked):
    autoslim_json("retrain", "--width", "1", "-r", worked, "retrain.epochs=8")
    start = ["model.weights=model-width-1.safetensors", "train.epochs=1", "train.lr=0.000001", "train.warmup=0"]
    said = autoslim("train-supernet", "-r", worked, *start, "--force")
    assert "starting from model-width-1.safetensors" in said.stderr
    warm = autoslim_json("train-supernet", "-r", worked, *start, "--resume")["widths"]
    cold = autoslim_json("train-supernet", "-r", worked, *start[1:], "--force")["widths"]
    assert warm["largest"]["top1"] > cold["largest"]["top1"] + 0.2
    autoslim_json("search", "--flops", "80%", "-r", worked, *start[1:])
    assert "weights" not in json.loads((worked / "arch-80pct.json").read_text())["model"]


def test_info_agrees_with_the_literature(autoslim_json):
    facts = autoslim_json("info", "torchvision/mobilenet_v2")
    assert facts["flops"] == facts["fvcore_flops"] == 300_774_272
    assert facts["params"] == 3_504_872
    slim = autoslim_json("info", "torchvision/mobilenet_v2", "--arg", "width_mult=0.75", "--classes", "10")
    assert slim["flops"] == slim["fvcore_flops"] < 220_000_000


def test_info_of_dense_networks_at_other_sizes(autoslim_json, refuse, worked):
    small, large = (autoslim_json("info", "autoslim/edsr", "--input", f"3,{size},{size}") for size in (12, 24))
    assert small["flops"] * 4 == large["flops"] == large["fvcore_flops"]
    found = worked / "arch-60pct.json"
    as_found, larger = autoslim_json("info", found), autoslim_json("info", found, "--input", "1,16,16")
    assert larger["agrees"]
    assert larger["params"] == as_found["params"]
    assert larger["flops"] > 3.9 * as_found["flops"]
    assert "does not run on an image of [3, 8, 8]" in refuse(2, "info", found, "--input", "3,8,8")
    base, wider = autoslim_json("info", worked), autoslim_json("info", worked, "--input", "1x16x16")
    assert wider["base"]["flops"] > 3.9 * base["flops"]


def test_info_of_a_detector_s_backbone(autoslim_json, refuse):
    detector = "torchvision/fasterrcnn_mobilenet_v3_large_320_fpn"
    sizes = ["--classes", "3", "--input", "3,64,64", "--arg", "min_size=64", "--arg", "max_size=64"]
    facts = autoslim_json("info", detector, *sizes, "--trace", "backbone")
    assert facts["agrees"]
    assert {row["name"].partition(".")[0] for row in facts["layers"]} == {"backbone"}
    assert facts["flops_around"] > 12544 * 1024  # at least the first layer of the box head, of one box
    assert "has no part 'bone'; expected is one of transform, backbone" in refuse(
        2, "info", detector, *sizes, "--trace", "bone"
    )
    assert "model.trace must name a part that does not: transform, backbone" in refuse(2, "info", detector, *sizes)


def test_tables_for_people(autoslim, worked):
    out = autoslim("info", worked / "arch-60pct.json").stdout
    assert "against the base network's" in out
    assert "fvcore agrees" in out
    assert "layer3.0.conv2" in autoslim("units", "-r", worked).stdout
    assert "top-1" in autoslim("evaluate", worked / "model-60pct.safetensors").stdout


def test_recipes_are_listed_shown_copied_and_checked(autoslim, autoslim_json, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = {row["name"]: row for row in autoslim_json("recipes", "list")["recipes"]}
    assert {"digits", "cifar10", "cifar10-smoke", "imagenet-mobilenet-v2"} <= set(listed)
    assert all(row["about"] for row in listed.values())
    shown = autoslim_json("recipes", "show", "cifar10", "train.epochs=3")
    assert (shown["train"]["epochs"], shown["search"]["score"]) == (3, "loss")
    assert autoslim_json("recipes", "copy", "digits", "mine")["path"] == "mine"
    assert autoslim_json("recipes", "validate", "mine") == {"path": "mine", "valid": True}
    assert "SupernetSettings" in autoslim_json("recipes", "schema")["$defs"]
    assert "did you mean train?" in autoslim("units", "-r", "cifar10-smoke", "trian.epochs=1", code=2).stderr
    assert not (tmp_path / "recipes").exists()  # nothing is copied for settings that are refused
    said = autoslim("units", "-r", "cifar10-smoke").stderr
    assert said.splitlines()[0] == "copied the shipped recipe cifar10-smoke to recipes/cifar10-smoke"


def test_the_cifar_recipe_is_the_paper_s_network(autoslim_json, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = autoslim_json("recipes", "show", "cifar10")["model"]
    channels = {unit["name"]: unit["base"] for unit in autoslim_json("units", "-r", "cifar10")["units"]}
    config = {"format": "autoslim.channels/1", "model": model, "channels": channels}
    (tmp_path / "base.json").write_text(json.dumps(config))
    assert autoslim_json("info", "base.json")["flops"] == 87_976_448


def test_a_search_of_another_smallest_width_is_another_search(worked, autoslim_json):
    search = ("search", "--flops", "30%", "-r", worked, "--resume")
    autoslim_json(*search)
    autoslim_json(*search, "supernet.min_width=0.4")
    rows = [json.loads(line) for line in (worked / "search.jsonl").read_text().splitlines()]
    assert [row["run"]["min_width"] for row in rows if "run" in row] == [0.25, 0.25, 0.4]


def test_what_the_paper_s_search_is_compared_with_is_not_filled_either(worked):
    used = {}
    for strategy in ("lazy", "paper"):
        project = open_project(load_recipe(worked, [f"search.strategy={strategy}"]), worked, Reporter())
        (budget,) = parse_many({"flops": "45%"}, project.costs(project.network.base))
        used[strategy] = budget.used(project.costs(uniform_channels(project, budget)))
    assert used["paper"] < used["lazy"]
