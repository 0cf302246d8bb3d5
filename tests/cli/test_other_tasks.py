"""Other tasks than classification, and a task of one's own, through the real commands."""

import json
import re
import textwrap
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from test_torchrun import torchrun

from autoslim_cli.progress import Reporter
from autoslim_cli.recipe.loading import load_recipe
from autoslim_cli.stages.project import open_project, origin
from autoslim_cli.training.opening import task_of

README = Path(__file__).parents[2] / "README.md"

NET = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, num_classes, head="out"):
            super().__init__()
            self.head = head
            self.a, self.b = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.norm = nn.BatchNorm2d(8)
            self.out, self.aux = nn.Conv2d(8, num_classes, 1), nn.Conv2d(8, num_classes, 1)

        def forward(self, images):
            first = torch.relu(self.norm(self.a(images)))
            return {self.head: self.out(torch.relu(self.b(first))), "aux": self.aux(first)}

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right, self.last = nn.Conv2d(1, 8, 3), nn.Conv2d(2, 8, 3), nn.Linear(16, 2)

        def forward(self, left, right):
            both = torch.cat([torch.relu(self.left(left)), torch.relu(self.right(right))], 1)
            return self.last(both.mean((2, 3)))
"""
DATA = """
    import torch

    class Blobs(torch.utils.data.Dataset):
        def __init__(self, part, count=96):
            self.part, self.count = part, count
        def __len__(self):
            return self.count
        def __getitem__(self, index):
            draw = torch.Generator().manual_seed(2 * index + (self.part == "test"))
            mask = torch.zeros(8, 8, dtype=torch.uint8)
            top, left = torch.randint(5, (2,), generator=draw).tolist()
            mask[top : top + 4, left : left + 4] = 1
            image = (60 * torch.rand(1, 8, 8, generator=draw) + 150 * mask).to(torch.uint8)
            return image, mask

    class Pairs(Blobs):
        def __getitem__(self, index):
            image, mask = super().__getitem__(index)
            image = image.float() / 255
            return (image, torch.cat([image, 1 - image])), torch.stack([image.mean(), image.std()])
"""
TASK = """
    from autoslim_cli import Metric, Task

    def means(of="error", loss=None, score=None):
        return Task(
            name="means",
            metric=Metric(name=of, unit="", higher_is_better=False),
            loss=loss or (lambda outputs, targets: (outputs - targets).square().mean()),
            statistics=lambda outputs, targets: (outputs - targets).abs().sum(),
            score=score or (lambda sums, images: sums[0] / (2 * images)),
        )

    def each():
        return means(loss=lambda outputs, targets: (outputs - targets).square())

    def nothing():
        return means(score=lambda sums, images: float("nan"))

    def crash():
        return means(loss=lambda outputs, targets: outputs @ targets)

    def none():
        return None

    def label():
        return means(of="Top-1")
"""


def write(directory, model, data, task, **sections):
    directory.mkdir()
    for name, code in (("net", NET), ("data", DATA), ("task", TASK)):
        (directory / f"{name}.py").write_text(textwrap.dedent(code))
    training = {"epochs": 2, "batch": 16, "lr": 0.05}
    recipe = {
        "model": model,
        "task": task,
        "data": {"holdout": 32, "workers": 0, **data},
        "space": {"groups": 4, "divisor": 2},
        "supernet": {"width": 1.5, "min_width": 0.25},
        "train": training,
        "calibrate": {"images": 64, "batch": 32},
        "search": {"batch": 16},
        "retrain": dict(training),
        "device": "cpu",
        **sections,
    }
    (directory / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return directory


@pytest.fixture
def segmenting(tmp_path):
    model = {"name": "./net.py:Net", "input": [1, 8, 8], "classes": 2}
    return write(tmp_path / "seg", model, {"name": "./data.py:Blobs"}, {"name": "segmentation"})


@pytest.fixture
def measuring(tmp_path):
    """Several inputs, an own loss, and a score of which less is better."""
    model = {"name": "./net.py:Two", "input": [1, 8, 8], "inputs": [[2, 8, 8]]}
    return write(tmp_path / "two", model, {"name": "./data.py:Pairs"}, {"name": "./task.py:means"})


def test_a_segmentation_network_with_several_outputs_goes_all_the_way(segmenting, autoslim, autoslim_json):
    done = autoslim("run", "-r", segmenting, "--flops", "60%", "search.score=miou")
    assert "test mIoU" in done.stdout
    assert "holdout mIoU largest" in done.stderr
    config = json.loads((segmenting / "arch-60pct.json").read_text())["found"]
    assert 0 < config["miou"] <= 1
    assert config["metric"]["label"] == "mIoU"
    rows = json.loads((segmenting / "report.json").read_text())["networks"]
    (searched,) = (row for row in rows if row["network"] == "searched")
    assert {"loss", "miou", "holdout_miou_without_retraining"} <= searched.keys()
    again = autoslim_json("evaluate", segmenting / "model-60pct.safetensors")
    assert again["miou"] == searched["miou"]
    compared = autoslim_json("compare", segmenting / "arch-60pct.json", segmenting / "model-60pct.safetensors")
    assert [row.get("miou") for row in compared["networks"]] == [
        None,
        {"holdout": config["miou"]},
        {"test": again["miou"]},
    ]
    assert "holdout mIoU" in autoslim("compare", segmenting / "arch-60pct.json").stdout
    page = (segmenting / "report.html").read_text()
    assert "mIoU against FLOPs" in page
    assert "top-1" not in page
    # Processes add up what the score is computed from.
    done = torchrun(2, "evaluate", segmenting / "model-60pct.safetensors", "evaluate.batch=7", "--json")
    assert done.returncode == 0, done.stderr
    alone = autoslim_json("evaluate", segmenting / "model-60pct.safetensors", "evaluate.batch=7")
    assert json.loads(done.stdout)["miou"] == alone["miou"] == pytest.approx(again["miou"])


def test_a_search_by_an_error_keeps_it_low(measuring, autoslim, autoslim_json):
    settings = ["search.score=error", "search.strategy=exact", "search.per_flop=false", "search.fill=0"]
    autoslim("run", "-r", measuring, "--flops", "60%", *settings)
    rows = [json.loads(line) for line in (measuring / "search.jsonl").read_text().splitlines()]
    assert rows[0]["metric"]["higher_is_better"] is False
    scored, steps = {}, 0
    for row in rows[1:]:
        if "scored" in row:
            scored |= {tuple(sorted(one.items())): value for one, _, value in row["scored"] if one}
        elif row.get("kind") == "slim":
            assert row["error"] == scored[((row["unit"], row["after"]),)] == min(scored.values())
            scored, steps = {}, steps + 1
    assert steps > 2
    assert autoslim_json("evaluate", measuring / "model-60pct.safetensors")["error"] < 0.3


def test_what_is_made_from_other_code_or_data_is_stale(measuring, autoslim):
    autoslim("train-supernet", "-r", measuring, "train.epochs=1")
    assert "is there and current" in autoslim("train-supernet", "-r", measuring, "train.epochs=1", "--resume").stderr
    for name in ("task", "data"):
        path = measuring / f"{name}.py"
        path.write_text(path.read_text() + "\n# changed\n")
        said = autoslim("train-supernet", "-r", measuring, "train.epochs=1", "--resume", "--force").stderr
        assert re.search(r"stale: (task|images) was sha256", said)


def test_code_that_changes_while_it_is_used_does_not_count(measuring):
    """Scores of the old code were recorded as those of the new."""
    project = open_project(load_recipe(measuring), measuring, Reporter())
    before = origin(project)["contents"]["task"]
    path = measuring / "task.py"
    path.write_text(path.read_text().replace("2 * images", "4 * images"))
    assert origin(project)["contents"]["task"] == before
    training = task_of(project.recipe, measuring, project.recipe.train, project.task)
    assert training.scored([1.0, 8.0], 1).value == project.task.scored([1.0, 8.0], 1).value == 4
    now = open_project(load_recipe(measuring), measuring, Reporter())
    assert origin(now)["contents"]["task"] != before
    assert now.task.scored([1.0, 8.0], 1).value == 2


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("./task.py:label", "task.args: ./task.py:label cannot be built: name: "),
        ("./task.py:each", "a loss is one number, a tensor of shape (), but it gives (16, 2)"),
        ("./task.py:nothing", "error of 32 images is nan, where a number was expected"),
        ("./task.py:crash", "its loss failed on (16, 2) and (16, 2): RuntimeError"),
        ("./task.py:none", "gave NoneType, not an autoslim_cli.Task"),
        ("./task.py:other", "has no factory 'other'"),
        ("classification", "model.classes is missing: classification"),
        ("segmentations", "classification, segmentation, super-resolution, multi-label, detection, or your own"),
    ],
)
def test_a_wrong_task_is_one_line(measuring, refuse, task, words):
    assert words in refuse(2, "train-supernet", "-r", measuring, f"task.name={task}", "train.epochs=1")


def test_a_score_that_the_task_does_not_have_cannot_be_searched_by(measuring, autoslim, refuse):
    autoslim("train-supernet", "-r", measuring, "train.epochs=1")
    said = refuse(2, "search", "-r", measuring, "--flops", "60%", "search.score=top1")
    assert "'top1' is no score of ./task.py:means: loss, or error" in said
    assert "softens logits" in refuse(2, "retrain", "-r", measuring, "--width", "0.5", "retrain.temperature=2")
    assert "softens logits" in refuse(2, "run", "-r", measuring, "--flops", "60%", "retrain.temperature=2")


def test_outputs_that_the_task_cannot_use_are_refused_before_any_work(segmenting, refuse):
    said = refuse(2, "units", "-r", segmenting, "model.classes=3", "task.name=multi-label")
    assert "multi-label expects logits of shape (images, labels)" in said
    said = refuse(2, "units", "-r", segmenting, "model.args={head: main}")
    assert "one is called out, but the network gives {main: (2, 2, 8, 8), aux: (2, 2, 8, 8)}" in said


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("Halves", "segmentation expects logits (images, classes, height, width) = (16, 2, 4, 8)"),
        ("Floats", "segmentation expects masks of whole numbers, but the data gives torch.float32"),
        ("Beyond", "and (16, 8, 8): IndexError: Target 3 is out of bounds"),
    ],
)
def test_targets_that_the_task_cannot_use_are_one_line(segmenting, refuse, data, words):
    changed = {"Halves": "mask[:4]", "Floats": "mask.float()", "Beyond": "3 * mask"}[data]
    code = f"\n\nclass {data}(Blobs):\n    def __getitem__(self, index):\n"
    code += f"        image, mask = super().__getitem__(index)\n        return image, {changed}\n"
    with (segmenting / "data.py").open("a") as file:
        file.write(code)
    assert words in refuse(2, "train-supernet", "-r", segmenting, f"data.name=./data.py:{data}", "train.epochs=1")


def test_a_network_that_is_taught_by_another_learns_its_outputs(segmenting, autoslim, autoslim_json):
    autoslim("train-supernet", "-r", segmenting, "train.epochs=1")
    settings = ("retrain.epochs=1", "retrain.start=supernet", "retrain.teacher_weight=1", "retrain.temperature=2")
    trained = []
    for teacher in ("none", "supernet"):
        lesson = (f"retrain.teacher={teacher}", "--name", f"of-{teacher}")
        made = autoslim_json("retrain", "-r", segmenting, "--width", "0.5", *lesson, *settings)
        trained.append(load_file(made["path"]))
    plain, taught = trained
    assert any(not torch.equal(plain[name], taught[name]) for name in plain)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "torch-export"])
def test_networks_of_several_inputs_or_outputs_are_exported(segmenting, measuring, autoslim, autoslim_json, form):
    """The files take and give all of them, checked, and the lines that load them run."""
    pytest.importorskip("onnxscript")
    outputs = {}
    for directory, left, right in ((segmenting, "a", "b"), (measuring, "left", "right")):
        channels = {left: 4, right: 6}
        model = yaml.safe_load((directory / "recipe.yaml").read_text())["model"]
        config = {"format": "autoslim.channels/1", "model": model, "channels": channels}
        (directory / "arch-mine.json").write_text(json.dumps(config))
        done = autoslim_json("export", f"--{form}", directory / "arch-mine.json", "--fold-bn", "--trust")
        assert done["difference"] < 1e-4
        exec("\n".join(done["loads"]), {}, outputs)
        if directory == measuring:
            assert outputs["logits"].shape == (1, 2)
        elif form == "onnx":
            assert [one.name for one in outputs["session"].get_outputs()] == ["out", "aux"]
            assert [one.shape for one in outputs["outputs"]] == [(1, 2, 8, 8)] * 2
        else:
            assert {name: one.shape for name, one in outputs["outputs"].items()}.keys() == {"out", "aux"}


@pytest.mark.slow
def test_the_only_output_keeps_its_name(segmenting, autoslim_json):
    """The line that loads the file asked for `logits`, which is not there."""
    pytest.importorskip("onnxscript")
    code = (segmenting / "net.py").read_text()
    (segmenting / "net.py").write_text(code.replace(', "aux": self.aux(first)', " + self.aux(first)"))
    model = yaml.safe_load((segmenting / "recipe.yaml").read_text())["model"]
    config = {"format": "autoslim.channels/1", "model": model, "channels": {"a": 4, "b": 6}}
    (segmenting / "arch-mine.json").write_text(json.dumps(config))
    for form in ("onnx", "torch-export"):
        outputs = {}
        exec("\n".join(autoslim_json("export", f"--{form}", segmenting / "arch-mine.json")["loads"]), {}, outputs)
        found = outputs["outputs"] if form == "onnx" else outputs["outputs"]["out"]
        assert found.shape == (1, 2, 8, 8)


def test_readmes_own_task_works(tmp_path, autoslim, autoslim_json):
    """The README's task.py, in fifteen lines, on the digits."""
    codes = re.findall(r"^```python\n(.*?)^```$", README.read_text(), flags=re.DOTALL | re.MULTILINE)
    (code,) = (code for code in codes if "Task(" in code)
    lines = code.splitlines()
    assert len(lines) <= 15
    model = {"name": "autoslim/cifar_resnet", "args": {"depth": 8, "in_channels": 1, "width": 8}, "input": [1, 8, 8]}
    data = {"name": "digits", "limit": 400}
    directory = write(tmp_path / "own", {**model, "classes": 10}, data, {"name": "./task.py:" + lines_factory(lines)})
    (directory / "task.py").write_text("\n".join(lines) + "\n")
    made = autoslim_json("train-supernet", "-r", directory)
    (name,) = made["widths"]["largest"].keys() - {"flops", "params", "loss"}
    assert made["widths"]["largest"][name] > 0
    autoslim("search", "-r", directory, "--flops", "60%", f"search.score={name}")


def lines_factory(lines):
    return next(line.removeprefix("def ").partition("(")[0] for line in lines if line.startswith("def "))
