"""What users get wrong: one line that says what to do, the right exit code, no half-written file."""

import json
import re

import pytest
import torch

from autoslim_cli.data.folder import list_images
from autoslim_cli.files import atomic
from autoslim_cli.seeds import generator
from autoslim_cli.training.score import Score
from autoslim_cli.training.state import State


def files(directory):
    return sorted(entry.name for entry in directory.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["search"], 2, ["name a budget", "--flops 300M"]),
        (["serch", "--flops", "3M"], 2, ["serch", "search"]),
        (["units", "--recpe", "digits"], 2, ["--recpe", "--recipe"]),
        (["units", "-r", "digitz"], 2, ["no recipe 'digitz'", "did you mean digits?"]),
        (["info", "torchvision/resnet19"], 2, ["resnet19", "resnet18"]),
        (["info", "resnet18"], 2, ["neither a file, nor a recipe, nor a model name", "torchvision/resnet18"]),
        (["info", "arch-9M.json"], 4, ["arch-9M.json", "autoslim search"]),
        (["info", "model-9M.safetensors"], 4, ["model-9M.safetensors", "no such checkpoint"]),
        (["info", "torchvision/resnet18", "--input", "3,224"], 2, ["--input", "1x28x28"]),
        (["info", "torchvision/resnet18", "--arg", "width=2"], 2, ["model.args", "width"]),
        (["info", "torchvision/vit_b_16"], 2, ["attention", "convolutional"]),
        (["info", "torchvision/mobilenet_v2", "--arg", "round_nearest=0"], 2, ["model.args", "ZeroDivisionError"]),
        (["info", "digits", "--arg", "depth=14"], 2, ["--arg", "digits says what they are"]),
        (["info", "nowhere"], 2, ["neither a file, nor a recipe, nor a model name"]),
        (["info", "nowhere:net"], 2, ["nowhere:net", "cannot be imported"]),
        (["recipes", "validate", "digits", "train.epoch=2"], 2, ["train.epoch", "did you mean epochs?"]),
    ],
)
def test_wrong_words(refuse, tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    line = refuse(code, *arguments)
    assert all(word in line for word in words), line
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["train-supernet", "trian.epochs=1"], ["unknown key trian", "did you mean train?"]),
        (["train-supernet", "device=cuda:9"], ["device", "cuda:9"]),
        (["train-supernet", "model.name=torchvision/resnet19"], ["model.name", "resnet19"]),
        (["train-supernet", "data.name=image-folder", "data.path=nowhere"], ["data.path", "nowhere"]),
        (["calibrate-bn"], ["--widths", "--channels"]),
        (["calibrate-bn", "--widths", "0.1:9"], ["--widths"]),
        (["retrain"], ["--width", "--uniform-flops"]),
        (["retrain", "--width", "9"], ["width 9", "0.25 to 1.5"]),
        (["search", "--flops", "3X"], ["--flops '3X' is not a budget"]),
        (["search", "--flops", "50%,20%,10%", "--params", "50%,20%"], ["3 bounds with --flops", "2 with --params"]),
        (["units", "space.pin=[layer9.*]"], ["space.pin", "'layer9.*'", "the nearest are layer"]),
        (["units", "space.tie=[[conv1, layer2.0.conv1]]"], ["space.tie", "conv1 has 8", "layer2.0.conv1 has 16"]),
        (["units", "space.tie=[[]]"], ["space.tie.0"]),
        (["units", "space.groups={nothing: 3}"], ["space.groups", "'nothing'"]),
        (["units", "space.min={conv1: 4, layer2*: 400}"], ["space.min: 400 channels", "layer2.0.conv1", "24 at most"]),
        (["units", "supernet.width=.inf"], ["supernet.width", "finite"]),
        (["train-supernet", "device=meta"], ["device", "cpu, cuda and mps"]),
        (["train-supernet", "data.std=[0]"], ["data.std"]),
        (
            ["train-supernet", "model.classes=12", "model.args={depth: 8, in_channels: 1, widht: 8}"],
            ["model.args", "widht"],
        ),
    ],
)
def test_wrong_settings(refuse, recipe, command, words):
    line = refuse(2, *command, "-r", recipe)
    assert all(word in line for word in words), line
    assert files(recipe) == ["recipe.yaml"]


def test_a_section_that_is_there_twice(refuse, recipe):
    """YAML takes the last, and what the first said was back at its default in silence."""
    path = recipe / "recipe.yaml"
    path.write_text(path.read_text() + "train: {epochs: 3}\n")
    said = refuse(2, "units", "-r", recipe)
    assert re.search(r"train is there twice \(lines \d+ and \d+\): make one of them", said)


@pytest.mark.parametrize(
    "line",
    ["[1, 2]", "{}", '{"scored": 3}', '{"draw": 0, "at": [1], "scored": [], "seconds": 0, "multiply_adds": 0}', "{"],
)
def test_a_log_with_a_damaged_line(refuse, worked, line):
    with (worked / "search.jsonl").open("a") as file:
        file.write(line + "\n")
    number = len((worked / "search.jsonl").read_text().splitlines())
    assert f"line {number} is damaged" in refuse(4, "search", "--flops", "60%,30%", "-r", worked, "--resume")


def test_scores_that_are_none(refuse, worked):
    log = worked / "search.jsonl"
    rows = log.read_text().splitlines()
    place = next(number for number, row in enumerate(rows) if '"scored"' in row)
    row = json.loads(rows[place])
    row["scored"][0][1] = float("nan")
    log.write_text("\n".join([*rows[:place], json.dumps(row), *rows[place + 1 :]]) + "\n")
    assert f"line {place + 1} is damaged" in refuse(4, "search", "--flops", "60%", "-r", worked, "--resume")


def test_one_image_is_no_score(refuse, worked):
    assert "2 images at least" in refuse(2, "search", "--flops", "60%", "-r", worked, "search.images=1")


@pytest.mark.parametrize(
    ("command", "module", "words"),
    [
        (("train-supernet", "train.epochs=1"), "train_supernet.scores_at", "train.lr"),
        (("retrain", "--width", "0.5"), "retrain.evaluate", "retrain.lr"),
    ],
)
def test_a_network_that_no_reader_would_take_is_not_written(refuse, recipe, monkeypatch, command, module, words):
    diverged = Score(float("nan"), 0.1)
    scores = {"largest": diverged} if module.startswith("train") else diverged
    monkeypatch.setattr(f"autoslim_cli.stages.{module}", lambda *_: scores)
    assert f"lower {words}" in refuse(1, *command, "-r", recipe)
    assert not list(recipe.glob("*.safetensors"))


def test_other_images_need_images_to_draw_from(refuse, worked):
    for override in ("seed=0", "search.images=150"):
        line = refuse(2, "search", "--flops", "60%", "-r", worked, "search.draw=anew", override)
        assert "set search.images below its 150 images" in line


@pytest.mark.parametrize(
    ("flops", "words"), [("1%", "out of reach"), ("100G", "holds without a search"), ("50%,1", "out of reach")]
)
def test_a_budget_out_of_reach_gives_the_range(refuse, worked, flops, words):
    before = files(worked), (worked / "search.jsonl").read_bytes()
    line = refuse(3, "search", "--flops", flops, "-r", worked)
    assert "this supernet goes from" in line
    assert words in line
    assert (files(worked), (worked / "search.jsonl").read_bytes()) == before


def test_a_uniform_budget_out_of_reach(refuse, recipe):
    assert "the smallest has" in refuse(3, "retrain", "--uniform-flops", "1%", "-r", recipe)


@pytest.mark.parametrize("words", [["--from", "supernet"], ["retrain.teacher=supernet"]])
def test_a_supernet_that_is_not_there_yet_is_named(refuse, recipe, words):
    line = refuse(4, "retrain", "--width", "1", "-r", recipe, *words)
    assert f"{recipe / 'supernet.safetensors'}: no such checkpoint" in line
    assert "train-supernet" in line


def test_settings_of_networks_that_train_together_mean_nothing_for_one(recipe, autoslim):
    said = autoslim("retrain", "--width", "1", "-r", recipe, "retrain.distill=true", "retrain.epochs=1").stderr
    assert "warning: retrain.distill is of --joint" in said


def test_rivals_cannot_start_from_one_network(refuse, worked):
    words = ["search.rivals=[magnitude]", "retrain.start=model-60pct.safetensors"]
    line = refuse(2, "search", "--flops", "50%", "-r", worked, *words)
    assert "search.rivals: their networks differ, and cannot all start from model-60pct.safetensors" in line


def test_stages_before_their_parents(refuse, recipe):
    for command in (["search", "--flops", "50%"], ["calibrate-bn", "--widths", "0.5"]):
        assert f"`autoslim train-supernet -r {recipe}` makes one" in refuse(4, *command, "-r", recipe)
    assert files(recipe) == ["recipe.yaml"]


@pytest.mark.parametrize("damage", ["truncated", "text", "foreign"])
def test_a_checkpoint_that_is_none(refuse, worked, damage):
    path = worked / "supernet.safetensors"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "text":
        path.write_text("not weights")
    else:
        path.write_bytes((worked / "model-60pct.safetensors").read_bytes())
    line = refuse(4, "search", "--flops", "50%", "-r", worked)
    assert "supernet.safetensors" in line
    assert "autoslim train-supernet" in line


def test_a_pickle_is_never_executed(refuse, worked, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"made_from": Trap()}, worked / "supernet.resume.pt")
    (worked / "supernet.safetensors").unlink()
    assert "damaged training state" in refuse(4, "train-supernet", "-r", worked, "--resume")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("override", ["data.holdout=100", "seed=5", "data.limit=500"])
def test_a_holdout_that_the_supernet_has_seen(refuse, worked, override):
    assert "holdout would hold images" in refuse(4, "search", "--flops", "50%", "-r", worked, override)


def test_run_checks_the_budget_before_it_trains(refuse, recipe):
    refuse(3, "run", "--flops", "500G", "-r", recipe)
    assert files(recipe) == ["recipe.yaml"]


NO_BLOCKS = """
from torch import nn


def make(num_classes):
    layers = nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes)
    return nn.Sequential(*layers)
"""


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        (["supernet.bn=switchable", "supernet.widths=[0.5, 1.0]"], 2, "a search needs bn: shared"),
        (["search.score=miou"], 2, "search.score: 'miou' is no score of classification"),
        (["search.draw=anew"], 2, "set search.images below its 150 images"),
        (["retrain.teacher=none.safetensors"], 4, "retrain.teacher: no file"),
        (["retrain.teacher=recipe.yaml"], 4, "recipe.yaml"),
        (["retrain.teacher=DEFAULT"], 2, "retrain.teacher: DEFAULT is a name of torchvision's or timm's weights"),
        (["retrain.start=weights"], 2, "retrain.start: weights are those of model.weights"),
        (
            ["model.name=./net.py:make", "model.args={}", "retrain.activation_checkpointing=true"],
            2,
            "no blocks of this network save",
        ),
    ],
)
def test_run_refuses_before_it_trains(refuse, recipe, settings, code, words):
    """What a search or a retraining would be refused for after the supernet's training, which may take days."""
    (recipe / "net.py").write_text(NO_BLOCKS)
    assert words in refuse(code, "run", "--flops", "60%", "-r", recipe, "train.epochs=1", *settings)
    assert [name for name in files(recipe) if name != "__pycache__"] == ["net.py", "recipe.yaml"]


def test_a_search_asks_what_its_trials_need_before_it_begins(refuse, worked):
    before = (worked / "search.jsonl").read_bytes()
    rivals = ("search.rivals=[magnitude]", "retrain.teacher=none.safetensors")
    assert "retrain.teacher: no file" in refuse(4, "search", "--flops", "50%", "-r", worked, *rivals)
    assert (worked / "search.jsonl").read_bytes() == before


def test_directories_are_no_files(refuse, worked):
    assert "a directory, not a channel config" in refuse(4, "retrain", worked, "-r", worked)
    (worked / "x.json").mkdir()
    assert "a directory, not a channel config" in refuse(4, "info", worked / "x.json")
    assert "not a directory" in refuse(2, "recipes", "copy", "digits", worked / "arch-60pct.json")


def test_a_supernet_of_another_space(refuse, worked):
    assert "another model or supernet" in refuse(4, "search", "--flops", "50%", "-r", worked, "supernet.width=1.25")


def test_resuming_with_other_settings(refuse, worked):
    state = {"decisive": {"recipe": {"train": {"epochs": 9}}}, "done": 1}
    torch.save(state, worked / "supernet.resume.pt")
    line = refuse(4, "train-supernet", "-r", worked, "--resume", "train.epochs=1")
    assert "other settings" in line
    search = ("search", "--flops", "50%", "-r", worked, "--resume")
    assert "search.batch was 75, is 150" in refuse(4, *search, "search.batch=150")
    assert "search.memory was 4.0, is 0.0001" in refuse(4, *search, "search.memory=0.0001")
    log = worked / "search.jsonl"
    log.write_text(log.read_text().replace("autoslim.search/3", "autoslim.search/1"))
    assert "not a log of this version" in refuse(4, *search)


def test_memory_for_less_than_two_images(refuse, worked):
    assert "do not hold two images" in refuse(1, "search", "--flops", "50%", "-r", worked, "search.memory=0.00001")


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"channels": {"conv1": 9999}}, 2, ["conv1", "9999", "1..12"]),
        ({"channels": {"conv9": 8}}, 2, ["conv9", "did you mean"]),
        ({"channels": {"conv1": None}}, 2, ["conv1"]),
        ({"channels": {"fc": 3}}, 2, ["'fc' is pinned at 10"]),
        ({"cost": {"flops": 1, "params": 1}}, 4, ["says 1 FLOPs", "correct cost"]),
        ({"model": {"classes": 7}}, 4, ["classes=7", "classes=10", "take the recipe that it was made for"]),
        ({"format": "autoslim.channels/9"}, 4, ["a channel config of another version, autoslim.channels/9"]),
        ({"chanels": {}}, 2, ["unknown key chanels", "did you mean channels?"]),
    ],
)
def test_a_config_that_does_not_fit(refuse, worked, change, code, words):
    path = worked / "arch-60pct.json"
    config = json.loads(path.read_text())
    for key, value in change.items():
        config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(config))
    line = refuse(code, "calibrate-bn", "--channels", path)
    assert all(word in line for word in ["arch-60pct.json", *words]), line
    assert not list(worked.glob("subnet-*"))


def test_a_config_cut_short(refuse, worked):
    path = worked / "arch-60pct.json"
    path.write_text(path.read_text()[:40])
    assert "not valid JSON" in refuse(4, "retrain", path)


def test_an_untraceable_network(refuse, recipe):
    (recipe / "net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__()\n"
        "        self.fc = nn.Linear(1, num_classes)\n"
        "    def forward(self, x):\n"
        "        return self.fc(x.mean((2, 3))) if x.sum() > 0 else None\n"
    )
    line = refuse(2, "units", "-r", recipe, "model.name=./net.py:Net", "model.args={}")
    assert "torch.fx cannot trace Net" in line


CODE = """
import torch
from torch import nn

class Cut(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x)[:, :8]

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv, self.cut, self.head = nn.Conv2d(1, 8, 3), Cut(8), nn.Linear(8, num_classes)

    def forward(self, x):
        x = self.conv(x)
        {line}
        return self.head(x.mean((2, 3)))

def plain():
    return Net(10)
"""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("if x.mean() > 0: x = -x", ["net.py:16: if x.mean() > 0", "must not branch on the values of tensors"]),
        (
            "x = self.cut(x)",
            ["cut (", "net.py:16) works at the base network's channels alone", "its code holds a size"],
        ),
        ("x = x + torch.ones(7, 1, 1)", ["does not run on an image of [1, 8, 8]", "net.py:16)", "check model.input"]),
        ("y = x[:, :4]; y += 1", ["iadd changes in place", "net.py:16): write it out of place"]),
    ],
)
def test_a_refusal_of_a_network_names_the_file_and_the_line(refuse, recipe, line, words):
    (recipe / "net.py").write_text(CODE.format(line=line))
    said = refuse(2, "units", "-r", recipe, "model.name=./net.py:Net", "model.args={}")
    assert all(word in said for word in words), said
    assert str(recipe / "net.py") in said


def test_a_factory_without_num_classes_gets_a_hint(refuse, recipe):
    (recipe / "net.py").write_text(CODE.format(line="pass"))
    said = refuse(2, "units", "-r", recipe, "model.name=./net.py:plain", "model.args={}")
    assert "it is called with num_classes=10 (model.classes)" in said


def test_a_loss_that_is_not_finite(refuse, recipe):
    line = refuse(1, "train-supernet", "-r", recipe, "train.lr=1e30", "train.warmup=0")
    assert "loss is not finite" in line
    assert "train.lr" in line
    assert files(recipe) == ["recipe.yaml", "supernet.metrics.jsonl"]  # which says how it came to that


def test_weights_that_a_last_step_broke_are_not_saved(refuse, recipe, monkeypatch):
    """The losses of an epoch are those before its last step; a state of weights that are no numbers helps nobody."""
    step, taken = State.step, []

    def broken(state, clip, done):
        step(state, clip, done)
        taken.append(None)
        if len(taken) == 14:  # the last of the second epoch
            with torch.no_grad():
                next(state.network.parameters()).fill_(torch.nan)

    monkeypatch.setattr(State, "step", broken)
    line = refuse(1, "train-supernet", "-r", recipe)
    assert "weights are not finite after step 14, and are not kept; lower train.lr" in line
    saved = torch.load(recipe / "supernet.resume.pt", weights_only=True)
    assert saved["done"] == 7
    assert all(tensor.isfinite().all() for tensor in saved["network"].values())


def test_a_full_disk(refuse, recipe, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    assert "no space left on the disk" in refuse(1, "train-supernet", "-r", recipe, "train.epochs=1")
    assert files(recipe) == ["recipe.yaml"]


def test_a_value_that_a_gpu_stops_at(refuse, recipe, monkeypatch):
    """A GPU says neither which value it was nor where."""

    def stopped(*_):
        raise RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later")

    monkeypatch.setattr(State, "step", stopped)
    line = refuse(1, "train-supernet", "-r", recipe)
    assert "such as a label that the network has no output for; the same command with device=cpu says which" in line


def test_an_image_that_cannot_be_read(refuse, recipe):
    for part in ("train", "test"):
        for label in ("a", "b"):
            (recipe / part / label).mkdir(parents=True)
            for number in range(9):
                (recipe / part / label / f"{number}.png").write_bytes(b"no image")
    line = refuse(1, "train-supernet", "-r", recipe, "data.name=image-folder", "data.path=.", "data.holdout=2")
    assert ".png cannot be read as an image" in line


def test_test_images_of_other_classes_are_met_before_the_supernet_is_trained(refuse, recipe):
    (recipe / "data.py").write_text(
        "import torch\n"
        "class Halves:\n"
        "    def __init__(self, part):\n"
        "        self.classes = ['b', 'a'] if part == 'test' else ['a', 'b']\n"
        "    def __len__(self):\n"
        "        return 40\n"
        "    def __getitem__(self, place):\n"
        "        return torch.full((1, 8, 8), place, dtype=torch.uint8), place % 2\n"
    )
    data = (
        "data.name=./data.py:Halves",
        "data.augment={}",
        "data.holdout=8",
        "data.limit=null",
        "model.classes=2",
        "search.batch=8",
    )
    line = refuse(2, "run", "--flops", "60%", "-r", recipe, *data)
    assert "the test images have other classes than the training images (class 0 was 'a', is 'b'" in line
    assert not list(recipe.glob("supernet.*"))


def test_a_damaged_image_of_the_holdout_is_met_before_the_training(refuse, recipe):
    """The looks after each epoch see a part of the holdout; all of it is scored when the training is over."""
    from PIL import Image

    for part in ("train", "test"):
        for label in ("a", "b"):
            (recipe / part / label).mkdir(parents=True)
            for number in range(20):
                Image.new("L", (8, 8), number).save(recipe / part / label / f"{number}.png")
    files = list_images(recipe, "train")
    last = torch.randperm(len(files.names), generator=generator(0, "holdout"))[:8][-1]
    damaged = files.directory / files.names[last]
    damaged.write_bytes(b"no image")
    data = ("data.name=image-folder", "data.path=.", "data.holdout=8", "evaluate.images=4", "train.batch=8")
    line = refuse(1, "train-supernet", "-r", recipe, *data)
    assert f"{damaged} cannot be read as an image" in line
    assert not (recipe / "supernet.metrics.jsonl").exists()
