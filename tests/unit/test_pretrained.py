"""Trained weights: sorted and widened networks compute what the trained one does."""

import copy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
import torchvision
from conftest import randomise_norms
from torch import nn

from autoslim_cli.errors import ArtifactError, UsageError
from autoslim_cli.files.checkpoint import fill
from autoslim_cli.models.built_in import FACTORIES
from autoslim_cli.models.zoo import build
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.schema import DataSettings, ModelSettings, RetrainSettings, TaskSettings
from autoslim_cli.slimming.importance import importance
from autoslim_cli.slimming.space import Space
from autoslim_cli.slimming.trained_weights import (
    changed_by_widening,
    load_trained,
    sort_channels,
    weights_digest,
    widened,
)
from autoslim_cli.stages.expected_images import warn_of_weights

NETWORKS = {
    "cifar_resnet": lambda: FACTORIES["cifar_resnet"](num_classes=5, depth=8),
    "mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=5),
    "mobilenet_v3_small": lambda: torchvision.models.mobilenet_v3_small(num_classes=5),
    "densenet121": lambda: torchvision.models.densenet121(num_classes=5),
    "shufflenet_v1": lambda: FACTORIES["shufflenet_v1"](num_classes=5),
    "shufflenet_v2_x0_5": lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=5),
    "resnext50_32x4d": lambda: torchvision.models.resnext50_32x4d(num_classes=5),
}
SHAPE = (3, 32, 32)


def opened(name):
    network = NETWORKS[name]().eval()
    randomise_norms(network)
    return network, read(network, SHAPE)


def close(one, other):
    images = torch.randn(2, *SHAPE)
    with torch.inference_mode():
        expected = other.eval()(images)
        torch.testing.assert_close(one.eval()(images), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", NETWORKS)
def test_sorting_keeps_the_function_and_widening_too(name):
    network, reading = opened(name)
    moved = copy.deepcopy(network)
    sort_channels(moved, reading.table)
    close(moved, network)
    changed = [n for n, t in moved.state_dict().items() if not torch.equal(t, network.state_dict()[n])]
    assert bool(changed) == any(unit.sortable for unit in reading.table.free)
    if name.startswith("shufflenet"):  # a shuffle gives other channels to other layers once there are more
        changing = changed_by_widening(reading)
        assert len(changing) == {"shufflenet_v1": 16, "shufflenet_v2_x0_5": 3}[name]
        assert all("change places" in words for words in changing)
        return
    assert changed_by_widening(reading) == []
    space = Space.of(reading.table, width=1.5, min_width=0.5, groups=6, divisor=4)
    wider = widened(moved, reading, space.largest)
    assert sum(p.numel() for p in wider.parameters()) > 1.3 * sum(p.numel() for p in network.parameters())
    close(wider, network)


def test_the_best_channels_come_first():
    network, reading = opened("cifar_resnet")
    with torch.no_grad():
        network.layer1[0].conv2.weight[:, 5] *= 100
    before = network.layer1[0].bn1.weight[5].clone()
    sort_channels(network, reading.table)
    assert torch.equal(network.layer1[0].bn1.weight[0], before)
    values = importance(network, reading.table, reading.table.base)["layer1.0.conv1"]
    assert (values.diff() <= 1e-5).all()


def test_what_widening_cannot_keep_is_named():
    network = torchvision.models.convnext_tiny(num_classes=5)
    found = changed_by_widening(read(network, SHAPE))
    assert "features.0.1 works over all channels" in found
    assert len(found) == 23  # every layer norm, and nothing else


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_come_from_a_file(tmp_path, suffix):
    import safetensors.torch

    network, reading = opened("cifar_resnet")
    trained = NETWORKS["cifar_resnet"]()
    path = tmp_path / f"trained{suffix}"
    save = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    save(trained.state_dict(), path)
    model = ModelSettings(name="autoslim/cifar_resnet", input=SHAPE, classes=5, weights=path.name)
    loaded, done = load_trained(reading, model, tmp_path)
    assert done == []
    assert all(torch.equal(p, q) for p, q in zip(loaded.parameters(), trained.parameters(), strict=True))
    assert not torch.equal(loaded.conv1.weight, network.conv1.weight)


def test_a_classifier_of_other_classes_is_left_and_anything_else_refused(tmp_path):
    _, reading = opened("cifar_resnet")
    model = ModelSettings(name="autoslim/cifar_resnet", input=SHAPE, classes=5, weights="w.pt")
    torch.save(FACTORIES["cifar_resnet"](num_classes=9, depth=8).state_dict(), tmp_path / "w.pt")
    assert load_trained(reading, model, tmp_path)[1] == ["as initialised: fc.weight, fc.bias"]
    torch.save(FACTORIES["cifar_resnet"](num_classes=5, depth=14).state_dict(), tmp_path / "w.pt")
    assert "not of this network: layer1.1.conv1.weight" in load_trained(reading, model, tmp_path)[1][0]
    torch.save(FACTORIES["cifar_resnet"](num_classes=5, depth=8, width=8).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ArtifactError, match=r"conv1\.weight is \[8, 3, 3, 3\], and \[16, 3, 3, 3\] here"):
        load_trained(reading, model, tmp_path)
    sound = FACTORIES["cifar_resnet"](num_classes=5, depth=8).state_dict()
    for name, tensor, words in (
        ("conv1.weight", sound["conv1.weight"] * float("nan"), "values that are not finite"),
        ("fc.bias", sound["fc.bias"].long(), "of torch.int64 in the file and of torch.float32 in the network"),
    ):
        torch.save({**sound, name: tensor}, tmp_path / "w.pt")
        with pytest.raises(ArtifactError, match=f"model.weights: w.pt: {name} .*{words}"):
            load_trained(reading, model, tmp_path)
    torch.save({"layer1.0.weight": torch.zeros(1), "layer2.0.conv1.weight": torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(ArtifactError, match=r"conv1\.weight is missing"):
        load_trained(reading, model, tmp_path)
    with pytest.raises(ArtifactError, match="no file"):
        load_trained(reading, model.model_copy(update={"weights": "none.pt"}), tmp_path)


def test_torchvision_s_weights_go_by_their_names(monkeypatch, tmp_path):
    _, reading = opened("mobilenet_v2")
    model = ModelSettings(name="torchvision/mobilenet_v2", input=SHAPE, classes=5, weights="IMAGENET1K_V9")
    with pytest.raises(UsageError, match="IMAGENET1K_V1"):
        load_trained(reading, model, tmp_path)
    state = torchvision.models.mobilenet_v2(num_classes=1000).state_dict()
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", lambda *_a, **_k: state)
    loaded, done = load_trained(reading, model.model_copy(update={"weights": "DEFAULT"}), tmp_path)
    assert done == ["as initialised: classifier.1.weight, classifier.1.bias"]
    assert torch.equal(loaded.features[0][0].weight, state["features.0.0.weight"])
    assert isinstance(loaded, nn.Module)
    (tmp_path / "weights").mkdir()
    torch.save({"model": state}, tmp_path / "weights" / "best")  # a file needs no suffix to be one
    _, done = load_trained(reading, model.model_copy(update={"weights": "weights/best"}), tmp_path)
    assert done[0] == "took model"


@pytest.fixture
def timm(monkeypatch):
    """A library that has one network with two weights: its names and functions are timm's, 1.0."""
    weights = {tag: FACTORIES["cifar_resnet"](num_classes=7, depth=8) for tag in ("a1_in1k", "b_in1k")}

    def pretrained_cfg(name):
        architecture, _, tag = name.partition(".")
        if architecture != "resnet8" or (tag and tag not in weights):
            raise RuntimeError(f"Invalid pretrained tag ({tag}) for {architecture}.")
        return SimpleNamespace(
            tag=tag or "a1_in1k",
            hf_hub_id=f"timm/resnet8.{tag or 'a1_in1k'}",
            url="",
            has_weights=True,
            mean=(0.5, 0.5, 0.5) if tag == "b_in1k" else (0.485, 0.456, 0.406),
            std=(0.5, 0.5, 0.5) if tag == "b_in1k" else (0.229, 0.224, 0.225),
        )

    def create_model(name, pretrained=False, num_classes=7, **kwargs):
        network = FACTORIES["cifar_resnet"](num_classes=num_classes, depth=8, **kwargs)
        if pretrained:
            network.load_state_dict(weights[pretrained_cfg(name).tag].state_dict())
        return network

    library = SimpleNamespace(
        is_model=lambda name: name.partition(".")[0] == "resnet8",
        list_models=lambda: ["resnet8"],
        list_pretrained=lambda pattern: [f"resnet8.{tag}" for tag in weights] if pattern == "resnet8.*" else [],
        create_model=create_model,
        models=SimpleNamespace(get_pretrained_cfg=pretrained_cfg),
        weights=weights,
    )
    monkeypatch.setitem(sys.modules, "timm", library)
    return library


@pytest.mark.parametrize(
    ("network", "name", "tag"),
    [("resnet8", "DEFAULT", "a1_in1k"), ("resnet8", "b_in1k", "b_in1k"), ("resnet8.b_in1k", "DEFAULT", "b_in1k")],
)
def test_timm_s_weights_go_by_their_names(timm, tmp_path, network, name, tag):
    model = ModelSettings(name=f"timm/{network}", input=SHAPE, classes=5, weights=name)
    reading = read(build(model), SHAPE)
    state = torch.random.get_rng_state()
    loaded, done = load_trained(reading, model, tmp_path)
    assert done == ["as initialised: fc.weight, fc.bias"]
    assert torch.equal(loaded.conv1.weight, timm.weights[tag].conv1.weight)
    assert weights_digest(model, tmp_path) == f"hf-hub:timm/resnet8.{tag}"
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_timm_has_not_is_refused_with_what_it_has(timm, monkeypatch, tmp_path):
    model = ModelSettings(name="timm/resnet8", input=SHAPE, classes=5, weights="c_in1k")
    reading = read(build(model), SHAPE)
    with pytest.raises(UsageError, match=r"no c_in1k of timm/resnet8; there are DEFAULT, a1_in1k, b_in1k"):
        load_trained(reading, model, tmp_path)

    def unreachable(*_, **__):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(ArtifactError, match=r"hf-hub:timm/resnet8\.a1_in1k could not be loaded \(Name or service"):
        load_trained(reading, model.model_copy(update={"weights": "DEFAULT"}), tmp_path)
    with pytest.raises(UsageError, match="is a name of torchvision's or timm's weights"):
        load_trained(reading, model.model_copy(update={"name": "autoslim/cifar_resnet"}), tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_timm_itself_loads_weights_by_their_names(monkeypatch, tmp_path):
    """All of it is timm's own but the download."""
    library = pytest.importorskip("timm")
    trained = library.create_model("mobilenetv3_small_050")
    randomise_norms(trained)
    safetensors.torch.save_file(trained.state_dict(), tmp_path / "model.safetensors")
    asked = []

    def downloaded(repo_id, filename, **_):
        asked.append((repo_id, filename))
        return str(tmp_path / filename)

    monkeypatch.setattr("timm.models._hub.hf_hub_download", downloaded)
    names = (("", "DEFAULT"), ("", "lamb_in1k"), (".lamb_in1k", "DEFAULT"))
    for number, (tag, name) in enumerate(names, 1):
        model = ModelSettings(name=f"timm/mobilenetv3_small_050{tag}", input=SHAPE, classes=5, weights=name)
        reading = read(build(model), SHAPE)
        loaded, done = load_trained(reading, model, tmp_path)
        assert done == ["as initialised: classifier.weight, classifier.bias"]
        wanted = {key: value for key, value in trained.state_dict().items() if not key.startswith("classifier")}
        assert all(torch.equal(loaded.state_dict()[key], value) for key, value in wanted.items())
        assert weights_digest(model, tmp_path) == "hf-hub:timm/mobilenetv3_small_050.lamb_in1k"
        assert asked == [("timm/mobilenetv3_small_050.lamb_in1k", "model.safetensors")] * number
    with pytest.raises(
        UsageError, match=r"no lamb of timm/mobilenetv3_small_050; there are DEFAULT, lamb_in1k, or give"
    ):
        load_trained(
            reading, model.model_copy(update={"name": "timm/mobilenetv3_small_050", "weights": "lamb"}), tmp_path
        )
    with pytest.raises(UsageError, match=r"timm has no network 'mobilenetv3_smal_050'.*mobilenetv3_small_050"):
        build(model.model_copy(update={"name": "timm/mobilenetv3_smal_050"}))
    project = project_of("timm/mobilenetv3_small_050", "DEFAULT")
    warn_of_weights(project)
    assert "data.mean=[0.485,0.456,0.406] data.std=[0.229,0.224,0.225]" in project.reporter.warnings[0]


class Heard:
    """A reporter that keeps what nobody should miss."""

    def __init__(self):
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)


def project_of(network, weights, **data):
    model = ModelSettings(name=network, input=SHAPE, classes=5, weights=weights)
    settings = DataSettings(**{"name": "cifar10", "holdout": 1, **data})
    recipe = SimpleNamespace(model=model, data=settings, task=TaskSettings(), retrain=RetrainSettings(epochs=1))
    return SimpleNamespace(recipe=recipe, directory=Path(), reporter=Heard())


IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.mark.parametrize(
    ("name", "weights", "data", "said"),
    [("timm/resnet8", "DEFAULT", {}, "data.mean=[0.485,0.456,0.406] data.std=[0.229,0.224,0.225], and the "
      "recipe leaves data.mean and data.std out"),
     ("timm/resnet8", "DEFAULT", {"mean": IMAGENET["mean"]}, "leaves data.std out"),
     ("timm/resnet8", "DEFAULT", IMAGENET, ""),
     ("timm/resnet8", "DEFAULT", {"mean": (0.1,) * 3, "std": (0.1,) * 3}, ""),  # a recipe that says so means it
     ("timm/resnet8", "b_in1k", {}, ""),
     ("timm/resnet8", "DEFAULT", {"name": "./data.py:Own"}, ""),
     ("timm/resnet8", "mine.pt", {}, ""),
     ("timm/resnet8", None, {}, ""),
     ("torchvision/mobilenet_v2", "IMAGENET1K_V1", {}, "data.mean=[0.485,0.456,0.406] data.std=[0.229,0.224,0.225]"),
     ("torchvision/ssdlite320_mobilenet_v3_large", "DEFAULT", {}, "")],
)  # fmt: skip
def test_images_that_weights_do_not_expect_are_said(timm, name, weights, data, said):
    project = project_of(name, weights, **data)
    warn_of_weights(project)
    assert len(project.reporter.warnings) == bool(said)
    assert said in "".join(project.reporter.warnings)


class Aliased(nn.Module):
    """A layer and its norm under two names, and buffers that are views of one memory."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.again = nn.Sequential(self.stem, self.norm)
        self.register_buffer("table", torch.arange(36.0).reshape(6, 6))
        self.register_buffer("part", self.table[:2])
        self.register_buffer("turned", self.table.t())
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(self.again(x).mean((2, 3)))


@pytest.mark.parametrize("kept", ["all", "first", "last"])
def test_a_layer_under_two_names_starts_from_either_and_views_are_not_taken_for_it(tmp_path, kept):
    """What torch.save keeps, what autoslim writes, and what safetensors' own save_model keeps."""
    torch.manual_seed(3)
    theirs = Aliased()
    tensors = {name: tensor.clone() + 1 for name, tensor in theirs.state_dict().items()}
    twice = {"stem.weight": "again.0.weight", "stem.bias": "again.0.bias"}
    twice |= {f"norm.{name}": f"again.1.{name}" for name in theirs.norm.state_dict()}
    for first, last in twice.items():
        tensors[last] = tensors[first]
    left_out = {"all": [], "first": twice.values(), "last": twice}[kept]
    tensors = {name: tensor for name, tensor in tensors.items() if name not in left_out}
    if kept == "all":
        torch.save(tensors, tmp_path / "theirs.pth")
    else:
        tensors = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
        safetensors.torch.save_file(tensors, tmp_path / "theirs.safetensors")
    (path,) = tmp_path.iterdir()
    model = ModelSettings(name="any", input=SHAPE, classes=4, weights=path.name)
    trained, _ = load_trained(read(Aliased(), SHAPE), model, tmp_path)
    filled = Aliased()
    if kept != "all":  # a file of views needs their own memory, as torch's has
        fill(filled, tensors, path)
    for network in (trained, filled) if kept != "all" else (trained,):
        for name, tensor in network.state_dict().items():
            if name in tensors and not name.endswith("num_batches_tracked"):
                assert torch.equal(tensor, tensors[name]), name
