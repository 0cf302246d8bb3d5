"""A detector through the real commands: its backbone is slimmed, its heads stay, its own losses train it."""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml
from test_torchrun import torchrun

from autoslim_cli.errors import ArtifactError
from autoslim_cli.recipe.loading import load_recipe
from autoslim_cli.slimming.base_network import BaseNetwork
from autoslim_cli.slimming.trained_weights import load_trained

RECIPES = Path(__file__).parents[2] / "recipes"

MORE_DATA = '''

class Odd(Scenes):
    """Images of two sizes, some without a digit, with targets that autoslim does not know."""

    def __getitem__(self, index):
        image, objects = super().__getitem__(index)
        if index % 3 == 0:
            image = torch.nn.functional.pad(image, (0, 16, 0, 0))
        if index % 4 == 0:
            objects = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
        return image, {**objects, "image_id": index}


class Wrong(Scenes):
    def __init__(self, part, count, how):
        super().__init__(part, count)
        self.how = how

    def __getitem__(self, index):
        image, objects = super().__getitem__(index)
        boxes, labels = objects["boxes"], objects["labels"]
        return image, {
            "labels": {"boxes": boxes, "labels": labels + 1},
            "shape": {"boxes": boxes[:, :3], "labels": labels},
            "one": boxes,
            "empty box": {"boxes": boxes[:, [0, 1, 0, 3]], "labels": labels},
            "floats": {"boxes": boxes, "labels": labels.float()},
            "no boxes": {"labels": labels},
        }[self.how]
'''
MORE_NET = '''

class Silent(SSD):
    """A detector that gives detections where its losses are wanted."""

    def forward(self, images, targets=None):
        self.eval()
        return super().forward(images)


def silent(num_classes):
    network = ssd(num_classes)
    network.__class__ = Silent
    return network
'''


@pytest.fixture
def detecting(tmp_path):
    """The shipped recipe, of few images."""
    directory = Path(shutil.copytree(RECIPES / "digits-detection", tmp_path / "detecting"))
    recipe = yaml.safe_load((directory / "recipe.yaml").read_text())
    recipe["data"] |= {"args": {"count": 40}, "holdout": 8}
    recipe |= {"device": "cpu", "calibrate": {"images": 16, "batch": 8}, "search": {"batch": 8}}
    recipe["train"]["epochs"] = recipe["retrain"]["epochs"] = 1
    (directory / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for name, more in (("data", MORE_DATA), ("net", MORE_NET)):
        path = directory / f"{name}.py"
        path.write_text(path.read_text() + more)
    return directory


@pytest.mark.slow
def test_a_detector_goes_all_the_way(detecting, autoslim, autoslim_json, refuse):
    settings = ["space.pin=[backbone.1.0]", "search.score=ap50"]
    done = autoslim("run", "-r", detecting, "--flops", "60%", *settings)
    assert "test AP50" in done.stdout
    assert "export --state-dict" in done.stderr
    found = json.loads((detecting / "arch-60pct.json").read_text())
    assert 0 <= found["found"]["ap50"] <= 1
    assert found["found"]["loss"] > 0
    assert found["channels"]["backbone.1.0"] == 20  # pinned
    assert all(unit.startswith("backbone.") for unit in found["channels"])
    # The heads are those of the base network, and of the supernet.
    model = detecting / "model-60pct.safetensors"
    heads = {
        name: {key: tensor.shape for key, tensor in safetensors.torch.load_file(file).items() if "head." in key}
        for name, file in (("model", model), ("supernet", detecting / "supernet.safetensors"))
    }
    assert heads["model"] == heads["supernet"] != {}
    # What was written is what was measured, by one process or two, by either AP.
    again = autoslim_json("evaluate", model, "evaluate.batch=5")
    (searched,) = (
        row for row in json.loads((detecting / "report.json").read_text())["networks"] if row["network"] == "searched"
    )
    assert again["ap50"] == pytest.approx(searched["ap50"])
    shared = torchrun(2, "evaluate", model, "evaluate.batch=5", "--json")
    assert shared.returncode == 0, shared.stderr
    assert json.loads(shared.stdout)["ap50"] == again["ap50"]
    assert "ap" in autoslim_json("evaluate", model, "task.metric=ap")
    assert "AP50 against FLOPs" in (detecting / "report.html").read_text()
    # A graph cannot hold it; its weights can be had.
    said = refuse(2, "export", "--onnx", model)
    assert "what lies around backbone branches on values" in said
    assert autoslim_json("export", "--state-dict", model, "--fold-bn")["difference"] < 1e-4
    compared = autoslim_json("compare", detecting / "arch-60pct.json", model)
    assert [row["flops"] for row in compared["networks"]][1:] == [again["flops"]] * 2
    # It learns from boxes alone.
    one = ("retrain", detecting / "arch-60pct.json", *settings, "--from", "supernet", "--quiet")
    assert "learn from the targets alone" in refuse(2, *one, "retrain.teacher=supernet")


@pytest.mark.slow
def test_images_of_several_sizes_in_parts_of_a_batch(detecting, autoslim):
    """And in worker processes, with images that hold nothing."""
    settings = ["data.name=./data.py:Odd", "data.workers=1", "train.batch=8", "train.micro_batch=3"]
    autoslim("train-supernet", "-r", detecting, *settings)
    autoslim("search", "-r", detecting, "--flops", "60%", *settings, "search.batch=5")
    weights = safetensors.torch.load_file(detecting / "supernet.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def test_trained_weights_of_other_classes_leave_the_heads_new(detecting):
    """As a detector of COCO's 91 classes that is to find pedestrians."""
    recipe = load_recipe(detecting)
    network = BaseNetwork.of(recipe, detecting, torch.device("cpu"))
    theirs = {
        name: torch.ones(5, *tensor.shape[1:]) if "head.classification" in name else tensor + 1
        for name, tensor in network.reading.module.state_dict().items()
    }
    torch.save(theirs, detecting / "theirs.pth")
    model = recipe.model.model_copy(update={"weights": "theirs.pth"})
    trained, (said,) = load_trained(network.reading, model, detecting)
    assert said.startswith("as initialised: head.classification_head")
    for name, tensor in trained.state_dict().items():
        if name.endswith(("weight", "bias")) and "head.classification" not in name:
            assert torch.equal(tensor, theirs[name]), name
    theirs["backbone.0.0.weight"] = torch.ones(5, 5)
    torch.save(theirs, detecting / "theirs.pth")
    with pytest.raises(ArtifactError, match=r"backbone\.0\.0\.weight is \[5, 5\]"):
        load_trained(network.reading, model, detecting)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("labels", "labels below model.classes (2, with the background as 0), but the data gives 2 to 2"),
        ("shape", "labels of int64 and boxes as left, top, right, bottom, but the data gives [{boxes:"),
        ("one", "an item is an image (channels, height, width) and a dictionary of boxes (objects, 4)"),
        ("empty box", "wider and higher than nothing"),
        ("floats", "labels of int64"),
        ("no boxes", "for each image {boxes: (objects, 4), labels: (objects,)}"),
    ],
)
def test_targets_that_a_detector_cannot_use_are_one_line(detecting, refuse, how, words):
    data = ["data.name=./data.py:Wrong", "data.args={count: 40, how: " + how + "}"]
    assert words in refuse(2, "train-supernet", "-r", detecting, *data)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("model.trace=''", "model.trace is missing: of a detector a part is slimmed, as backbone"),
        ("model.trace=backbones", "has no part 'backbones'; expected is one of backbone"),
        ("model.trace=head", "head is called with more than tensors by position"),
        ("model.name=./net.py:silent", "expects a network that gives its losses of images and targets in training"),
        ("task.metric=ap75", "task.metric"),
        ("data.name=digits data.args={}", "the task is detection: a data set of your own, as ./data.py:factory"),
        ("train.label_smoothing=0.1", "label_smoothing: of classification and segmentation, not of detection"),
    ],
)
def test_a_detector_that_cannot_be_slimmed_is_one_line(detecting, refuse, setting, words):
    assert words in refuse(2, "train-supernet", "-r", detecting, *setting.split(" "))
