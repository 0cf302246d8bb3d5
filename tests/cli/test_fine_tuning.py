"""Retraining that starts from trained weights, and learns from a teacher."""

import copy
import json
from argparse import Namespace

import pytest
import torch
import torchvision
from artifacts import rewritten
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from autoslim_cli import load_model
from autoslim_cli.files.atomic import sha256
from autoslim_cli.network.trace import read
from autoslim_cli.slimming.trained_weights import sort_channels
from autoslim_cli.stages import start

ONE_EPOCH = ("retrain.epochs=1", "retrain.lr=1e-9", "retrain.calibrate=true")
"""A training that leaves the weights where they are."""


def retrained(autoslim_json, directory, *arguments):
    return autoslim_json("retrain", directory / "arch-60pct.json", *arguments)


def weights_of(path):
    return {name: t for name, t in load_file(path).items() if "running" not in name and "num_batches" not in name}


def test_a_network_starts_from_the_supernets_weights(autoslim_json, worked):
    result = retrained(autoslim_json, worked, "--from", "supernet", *ONE_EPOCH)
    assert result["path"].endswith("model-60pct-from-supernet.safetensors")
    assert (result["start"], result["epochs"]) == ("supernet", 1)
    (row,) = autoslim_json("calibrate-bn", "-r", worked, "--channels", worked / "arch-60pct.json")["subnetworks"]
    cut, tuned = weights_of(row["path"]), weights_of(result["path"])
    assert cut.keys() == tuned.keys()
    for name, tensor in cut.items():
        torch.testing.assert_close(tuned[name], tensor, atol=1e-6, rtol=0)
    # The one from scratch is another network, and stays beside it.
    scratch = weights_of(worked / "model-60pct.safetensors")
    assert any((scratch[name] - tensor).abs().max() > 0.01 for name, tensor in cut.items())


def test_a_network_starts_from_a_file_of_its_own_shape(autoslim, autoslim_json, worked):
    source = load_file(worked / "model-60pct.safetensors")
    plain = worked / "pruned.safetensors"
    save_file({name: t for name, t in source.items() if "num_batches" not in name}, plain)
    result = retrained(autoslim_json, worked, "--from", plain, "--name", "mine", *ONE_EPOCH)
    assert result["path"].endswith("model-mine.safetensors")
    for name, tensor in weights_of(result["path"]).items():
        torch.testing.assert_close(tensor, source[name], atol=1e-6, rtol=0)
    # One of another shape is refused by the layer's name.
    refused = autoslim("retrain", worked / "arch-30pct.json", "--from", plain, code=4)
    assert "conv" in refused.stderr
    missing = autoslim("retrain", worked / "arch-30pct.json", "--from", "no-such.safetensors", code=4)
    assert "retrain.start" in missing.stderr


def test_a_network_starts_from_a_file_though_the_recipe_lies_behind_a_link(autoslim, autoslim_json, worked, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    link = tmp_path / "deep" / "er" / "linked"
    link.symlink_to(worked)
    config, source = link / "arch-60pct.json", worked / "model-60pct.safetensors"
    again = autoslim_json("retrain", config, "--name", "again", "--from", source, "retrain.epochs=1", "-r", link)
    assert again["start"] == "model-60pct.safetensors"


def test_a_network_starts_from_a_checkpoint_of_another_tool(autoslim, worked):
    source = load_file(worked / "model-60pct.safetensors")
    wrapped = {"state_dict": {f"module.{name}": t for name, t in source.items()}, "epoch": 9, "args": Namespace(lr=1)}
    torch.save(wrapped, worked / "last.ckpt")
    done = autoslim("retrain", worked / "arch-60pct.json", "--from", worked / "last.ckpt", *ONE_EPOCH)
    assert "last.ckpt; took state_dict; took 'module.' off the names" in done.stderr
    for name, tensor in weights_of(worked / "model-60pct-from-last.safetensors").items():
        torch.testing.assert_close(tensor, source[name], atol=1e-6, rtol=0)


def test_a_supernet_starts_from_a_pickled_network(autoslim, refuse, worked):
    """It was called a damaged training state, to be removed, in raw colours."""
    network, _ = load_model(autoslim_base(autoslim, worked))
    torch.save(network, worked / "mine.pth")
    done = autoslim("train-supernet", "-r", worked, "model.weights=mine.pth", "train.epochs=1", "--force")
    assert "starting from mine.pth; read the tensors of a pickled" in done.stderr
    torch.save({"epoch": 1}, worked / "mine.pth")
    said = refuse(4, "train-supernet", "-r", worked, "model.weights=mine.pth", "train.epochs=1", "--force")
    assert "mine.pth holds no tensors by name; save it anew as torch.save" in said
    assert "remove" not in said


def autoslim_base(autoslim, worked):
    autoslim("retrain", "--width", "1.0", "-r", worked, "retrain.epochs=1")
    return worked / "model-width-1.safetensors"


def test_a_network_starts_from_the_base_networks_weights(autoslim_json, autoslim, worked):
    base = autoslim_json("retrain", "--width", "1.0", "-r", worked, "retrain.epochs=1")
    weights = f"model.weights={base['path'].rpartition('/')[2]}"
    result = autoslim_json("retrain", "--width", "1.0", "--from", "weights", "-r", worked, weights, *ONE_EPOCH)
    before, _ = load_model(base["path"])
    after, _ = load_model(result["path"])
    images = torch.rand(8, 1, 8, 8)
    with torch.no_grad():  # channels are sorted: other weights, the same function
        torch.testing.assert_close(after.train()(images), before.train()(images), atol=1e-4, rtol=0)
    slim = autoslim_json("retrain", "--width", "0.5", "--from", "weights", "-r", worked, weights, *ONE_EPOCH)
    plain = before.layer1[0].conv1.weight.detach().clone()
    sort_channels(before, read(before, (1, 8, 8)).table)  # the most important channels are those that are kept
    kept, held = weights_of(slim["path"])["layer1.0.conv1.weight"], before.layer1[0].conv1.weight.detach()
    held, plain = (weight[: kept.shape[0], : kept.shape[1]] for weight in (held, plain))
    assert kept.shape[0] < len(before.layer1[0].conv1.weight)
    assert (kept - held).abs().max() < 0.1 * (kept - plain).abs().max()
    autoslim("retrain", "--width", "0.5", "--from", "weights", "-r", worked, code=2)


def test_a_holdout_that_decides_is_not_one_that_the_supernet_learned(autoslim, refuse, worked):
    """The recipe's own with another seed holds images that the supernet was trained on."""
    settings = ("retrain", "--width", "0.5", "-r", worked, "--from", "supernet", "retrain.epochs=1", "data.holdout=100")
    assert "the holdout would hold images that it was trained on" in refuse(4, *settings, "retrain.keep=best")
    autoslim(*settings)  # nothing is scored on it
    file = ("retrain", "--width", "0.5", "-r", worked, "--from", "model-width-0.5-from-supernet.safetensors")
    said = autoslim(*file, "--name", "again", "retrain.epochs=1", "retrain.keep=best").stderr
    assert "retrain.start: " in said
    assert "learned from images of the holdout" in said


def test_channels_that_the_supernet_lacks_are_refused(autoslim, worked):
    wide = json.loads((worked / "arch-60pct.json").read_text())
    wide = {key: wide[key] for key in ("format", "model", "channels")}
    wide["channels"]["layer1.0.conv1"] = 40
    (worked / "arch-wide.json").write_text(json.dumps(wide))
    result = autoslim("retrain", worked / "arch-wide.json", "--from", "supernet", code=2)
    assert "layer1.0.conv1" in result.stderr
    assert "40" in result.stderr


@pytest.mark.parametrize("teacher", ["supernet", "model-60pct.safetensors"])
def test_a_teacher_changes_what_is_learnt(autoslim_json, worked, teacher):
    settings = ("retrain.epochs=1", "--name", "student")
    alone = weights_of(retrained(autoslim_json, worked, *settings)["path"])
    taught = weights_of(retrained(autoslim_json, worked, *settings, f"retrain.teacher={teacher}")["path"])
    assert any((alone[name] - tensor).abs().max() > 1e-3 for name, tensor in taught.items())


def test_weights_of_one_s_own_teach(autoslim, autoslim_json, refuse, worked):
    """A state dict was called a damaged checkpoint, and no setting took it."""
    source, _ = load_model(autoslim_base(autoslim, worked))
    torch.save(source.state_dict(), worked / "trained.pt")
    settings = ("retrain.epochs=1", "--name", "student")
    taught = (*settings, "retrain.teacher=weights", "model.weights=trained.pt")
    student = worked / "model-student.safetensors"
    retrained(autoslim_json, worked, *settings, "retrain.teacher=model-width-1.safetensors")
    by_checkpoint = weights_of(student)
    result = retrained(autoslim_json, worked, *taught)
    for name, tensor in weights_of(result["path"]).items():
        torch.testing.assert_close(tensor, by_checkpoint[name], rtol=0, atol=0)
    again = ("retrain", worked / "arch-60pct.json", *taught, "--resume")
    assert "is there and current" in autoslim(*again).stderr
    torch.save({name: tensor * 2 for name, tensor in source.state_dict().items()}, worked / "trained.pt")
    assert "is there and current" not in autoslim(*again).stderr
    # A head of other classes has nothing to teach.
    torch.save({**source.state_dict(), "fc.weight": torch.zeros(7, 32)}, worked / "trained.pt")
    assert "fc.weight is [7, 32], and [10, 32] here" in refuse(4, *again[:-1])
    assert "retrain.teacher: weights are those of model.weights" in refuse(2, *again[:2], "retrain.teacher=weights")


@pytest.mark.parametrize("name", ["trained.pt", "legacy.pth", "plain.safetensors"])
def test_weights_alone_are_told_what_takes_them(refuse, worked, name):
    state = load_file(worked / "model-60pct.safetensors")
    if name == "plain.safetensors":
        save_file(state, worked / name)
    else:
        torch.save(state, worked / name, _use_new_zipfile_serialization=name == "trained.pt")
    for command in (["evaluate"], ["info"], ["retrain", worked / "arch-60pct.json", "--name", "student"]):
        given = [f"retrain.teacher={name}"] if command[0] == "retrain" else [worked / name]
        line = refuse(4, *command, *given)
        assert "model.weights" in line
        assert "damaged" not in line


def test_a_teacher_goes_by_its_library_s_name(autoslim, autoslim_json, refuse, worked, monkeypatch):
    trained = torchvision.models.mobilenet_v3_small(num_classes=10)
    served = {"state": trained.state_dict()}
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", lambda *_, **__: served["state"])
    taught = "retrain.teacher=torchvision/mobilenet_v3_small"
    settings = ("retrain.epochs=1", "--name", "student")
    # It is asked before any training whether it takes the images, and has the classes.
    said = refuse(2, "retrain", worked / "arch-60pct.json", *settings, taught)
    assert "torchvision/mobilenet_v3_small takes no images of [1, 8, 8]" in said
    said = refuse(2, "retrain", worked / "arch-60pct.json", *settings, f"{taught}:V9")
    assert "no V9 of torchvision/mobilenet_v3_small; there are IMAGENET1K_V1, DEFAULT" in said
    trained.features[0][0] = torch.nn.Conv2d(1, 16, 3, 2, 1, bias=False)
    served["state"] = trained.state_dict()
    monkeypatch.setattr(start, "build", lambda *_: copy.deepcopy(trained))
    alone = weights_of(retrained(autoslim_json, worked, *settings)["path"])
    result = retrained(autoslim_json, worked, *settings, f"{taught}:IMAGENET1K_V1")
    assert any((alone[name] - tensor).abs().max() > 1e-3 for name, tensor in weights_of(result["path"]).items())
    with safe_open(result["path"], "pt") as file:
        contents = json.loads(file.metadata()["autoslim"])["made_from"]["contents"]
    assert contents["teacher"].startswith("https://download.pytorch.org/models/mobilenet_v3_small")
    again = autoslim("retrain", worked / "arch-60pct.json", *settings, f"{taught}:IMAGENET1K_V1", "--resume")
    assert "is there and current" in again.stderr
    served["state"] = {**served["state"], "classifier.3.weight": torch.zeros(1000, 1024)}
    said = refuse(4, "retrain", worked / "arch-60pct.json", *settings, taught)
    assert "classifier.3.weight is [1000, 1024] in the file and [10, 1024] in the network" in said


def test_a_teacher_of_the_recipe_s_own_name_needs_a_library(refuse, worked):
    said = refuse(2, "retrain", worked / "arch-60pct.json", "retrain.teacher=DEFAULT")
    assert "retrain.teacher: DEFAULT is a name of torchvision's or timm's weights; for autoslim/cifar_resnet" in said


def test_a_student_of_a_fixed_teacher_alone_learns_its_outputs(autoslim_json, worked):
    """With the whole weight on the teacher, a network that starts as its own teacher has nothing to learn."""
    own = worked / "model-60pct.safetensors"
    settings = (f"retrain.teacher={own.name}", "retrain.teacher_weight=1", "retrain.epochs=1", "retrain.lr=0.001")
    result = retrained(autoslim_json, worked, "--from", own, "--name", "again", *settings, "retrain.weight_decay=0")
    scratch = retrained(autoslim_json, worked, "--name", "other", *settings)
    moved = max((t - load_file(own)[n]).abs().max() for n, t in weights_of(result["path"]).items())
    assert moved < 0.05
    assert result["loss"] < scratch["loss"]


def test_a_start_and_a_teacher_of_one_name_are_both_parents(autoslim, autoslim_json, worked):
    (worked / "before").mkdir()
    own, before = worked / "model-60pct.safetensors", worked / "before" / "model-60pct.safetensors"
    rewritten(own, lambda facts: facts.update(chosen_by="another"), before)
    settings = ("--name", "student", "retrain.teacher=before/model-60pct.safetensors", "retrain.epochs=1")
    result = retrained(autoslim_json, worked, "--from", own, *settings)
    with safe_open(result["path"], "pt") as file:
        parents = json.loads(file.metadata()["autoslim"])["made_from"]["parents"]
    assert parents.keys() == {"arch-60pct.json", "model-60pct.safetensors", "before/model-60pct.safetensors"}
    assert parents["before/model-60pct.safetensors"] == sha256(before)
    rewritten(own, lambda facts: facts.update(chosen_by="one more"))
    said = autoslim("retrain", worked / "arch-60pct.json", "--from", own, *settings, "--resume").stderr
    assert "model-student.safetensors is stale: model-60pct.safetensors was sha256:" in said


def test_run_fine_tunes_from_the_supernet(autoslim, autoslim_json, worked):
    result = autoslim_json("run", "--flops", "60%", "--from", "supernet", "-r", worked, "retrain.epochs=1")
    names = [row["path"].rpartition("/")[2] for row in result["networks"] if "path" in row]
    assert len(names) == 2
    assert all("-from-supernet" in name for name in names)
    autoslim("run", "--flops", "60%", "--from", "elsewhere", "-r", worked, code=2)


def test_a_changed_supernet_makes_a_fine_tuned_network_stale(autoslim, autoslim_json, worked):
    first = retrained(autoslim_json, worked, "--from", "supernet", "retrain.epochs=1")
    again = autoslim("retrain", worked / "arch-60pct.json", "--from", "supernet", "retrain.epochs=1", "--resume")
    assert "there and current" in again.stderr
    (worked / "supernet.safetensors").unlink()
    autoslim_json("train-supernet", "-r", worked, "train.lr=0.05")
    stale = autoslim("retrain", worked / "arch-60pct.json", "--from", "supernet", "retrain.epochs=1", "--resume")
    assert "stale" in stale.stderr
    assert first["path"].endswith(".safetensors")


@pytest.mark.slow
def test_whatever_takes_a_library_s_weights_says_what_images_they_expect(autoslim, recipe, monkeypatch):
    """They learned from images of other means, and gave quietly poor results."""
    state = torchvision.models.mobilenet_v3_small(num_classes=1000).state_dict()
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", lambda *_, **__: state)
    network = ("model.name=torchvision/mobilenet_v3_small", "model.args={}", "model.input=[3,32,32]")
    short = ("train.epochs=1", "retrain.epochs=1", "data.limit=200", "data.holdout=50", "supernet.width=1")
    settings = ("-r", recipe, *network, *short, "model.weights=DEFAULT")
    weights, teacher = (
        f"warning: {key}: DEFAULT of torchvision/mobilenet_v3_small learned from images of "
        "data.mean=[0.485,0.456,0.406] data.std=[0.229,0.224,0.225], and the recipe leaves data.mean and data.std out"
        for key in ("model.weights", "retrain.teacher")
    )
    assert weights in autoslim("train-supernet", *settings).stderr
    retrain = ("retrain", "--width", "1", *settings)
    assert weights in autoslim(*retrain, "--from", "weights").stderr
    (model,) = recipe.glob("model-*.safetensors")
    assert "warning" not in autoslim("evaluate", model, *settings).stderr  # it learned from images as they are here
    taught = autoslim(*retrain, "--name", "taught", "retrain.teacher=DEFAULT", code=4).stderr
    assert teacher in taught  # and then its classes are others
    said = ("data.mean=[0.485,0.456,0.406]", "data.std=[0.229,0.224,0.225]")
    assert "warning: model.weights" not in autoslim(*retrain, "--from", "weights", "--name", "same", *said).stderr
