"""Switchable BN, joint training, the spectrum of widths, and switching at run time."""

import copy
import inspect
import itertools
import json

import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

import autoslim_cli
from autoslim_cli.errors import UsageError
from autoslim_cli.models.built_in import cifar_resnet
from autoslim_cli.network.trace import read
from autoslim_cli.progress import Reporter
from autoslim_cli.recipe.loading import load_recipe
from autoslim_cli.slimming.space import Space
from autoslim_cli.slimming.supernet import Supernet, largest
from autoslim_cli.stages.project import load_supernet, open_project
from autoslim_cli.stages.start import teacher
from autoslim_cli.training.measure import calibrate, evaluate
from autoslim_cli.training.sandwich import run_switches, sandwich_step
from autoslim_cli.training.tasks import classification

SWITCHABLE = ["train.epochs=8", "supernet.bn=switchable", "supernet.widths=[0.5, 1.0]", "supernet.distill=false"]


def test_a_switch_has_its_own_bn_and_trains_it():
    reading = read(cifar_resnet(5, depth=8, width=8), (3, 8, 8))
    space = Space.of(reading.table, width=1.5, min_width=0.25, groups=6, divisor=2)
    switches = {"half": space.uniform(0.5), "base": space.uniform(1.0)}
    assert largest(switches) == switches["base"]
    network = Supernet(reading.module, reading, largest(switches), switches)
    images, labels = torch.randn(16, 3, 8, 8), torch.randint(5, (16,))
    before = {name: tensor.clone() for name, tensor in network.private.state_dict().items()}
    network.zero_gradients()
    sandwich_step(run_switches(network), images, labels, "base", ["half"], task=classification(5), distill=False)
    after = network.private.state_dict()
    means = [name for name in after if name.endswith("running_mean")]
    assert len(means) == 2 * 9
    assert not any(torch.equal(before[name], after[name]) for name in means)
    assert all(p.grad.abs().sum() > 0 for name, p in network.private.named_parameters() if name.endswith("weight"))
    for name, channels in switches.items():
        network.switch_to(name)
        network.eval()
        extracted = network.extract(channels, name).eval()
        torch.testing.assert_close(network(images), extracted(images))
        assert torch.equal(extracted.bn1.running_mean, after[f"/{name}./bn1.running_mean"])
        network.train()


class Parted(nn.Module):
    """A network of which a part is read; BN lies in it, and outside."""

    def __init__(self, num_classes):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.head = nn.Sequential(nn.Conv2d(8, num_classes, 1), nn.BatchNorm2d(num_classes))

    def forward(self, x):
        return self.head(self.backbone(x)).mean([2, 3])


def test_a_switch_has_its_own_bn_outside_of_what_was_read():
    reading = read(Parted(5), (1, 8, 8), part="backbone")
    base = reading.table.base
    switches = {"base": base, "half": {**base, "backbone.0": 4}}
    network = Supernet(copy.deepcopy(reading.module), reading, base, switches)
    batches = [torch.randn(64, 1, 8, 8) * 2 + 3 for _ in range(60)]
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    labels = torch.randint(5, (64,))
    for images in batches:
        network.zero_gradients()
        sandwich_step(run_switches(network), images, labels, "base", ["half"], task=classification(5), distill=False)
        optimizer.step()
    own = {name: network.extract(channels, name).head[1] for name, channels in switches.items()}
    assert all(norm.num_batches_tracked == len(batches) for norm in own.values())
    one, other = (norm.state_dict() for norm in own.values())
    assert not any(torch.equal(one[name], other[name]) for name in one if name != "num_batches_tracked")
    for name, channels in switches.items():
        plain = network.extract(channels, name)
        network.eval().switch_to(name)
        torch.testing.assert_close(network(batches[0]), plain.eval()(batches[0]))
        measured = copy.deepcopy(plain)
        calibrate(measured, [(images, labels) for images in batches[-10:]])
        torch.testing.assert_close(plain.head[1].running_mean, measured.head[1].running_mean, atol=0.1, rtol=0.1)
    # Without a switch they are the network's own, which are none of a switch's.
    network.activate(base)
    assert network.body.head[1].running_mean is network.body.head[1]._buffers["running_mean"]
    assert network.body.head[1].weight is network.body.head[1]._parameters["weight"]


def test_networks_of_which_a_part_is_read_train_jointly(autoslim, autoslim_json, recipe):
    """And a slimmable one of fixed widths: what is written has measured BN, outside of the part, too."""
    (recipe / "net.py").write_text(f"from torch import nn\n{inspect.getsource(Parted)}")
    own = ("-r", recipe, "model.name=./net.py:Parted", "model.args={}", "model.trace=backbone", "train.lr=0.02")
    for name, count in (("wide", 8), ("slim", 4)):
        config = {"model": {"name": "./net.py:Parted", "input": [1, 8, 8], "classes": 10, "trace": "backbone"}}
        config |= {"format": "autoslim.channels/1", "channels": {"backbone.0": count, "backbone.3": 8}}
        (recipe / f"arch-{name}.json").write_text(json.dumps(config))
    files = [recipe / f"model-{name}-joint.safetensors" for name in ("wide", "slim")]
    jointly = ("retrain", recipe / "arch-wide.json", recipe / "arch-slim.json", "--joint", *own, "retrain.epochs=6")
    for command in (jointly, ("train-supernet", *own, *SWITCHABLE), ("retrain", "--width", "1", *own)):
        assert " MiB with the tensors of the part backbone alone, 64 images" in autoslim(*command).stderr
    files += [autoslim_json("extract", "--width", width, *own, *SWITCHABLE)["path"] for width in ("1", "0.5")]
    for file in files:
        weights = safetensors.torch.load_file(file)
        assert weights["head.1.num_batches_tracked"] == weights["backbone.1.num_batches_tracked"] > 0
        assert weights["head.1.running_mean"].abs().min() > 0


def test_a_slimmable_network_runs_at_its_switches(autoslim_json, refuse, recipe):
    result = autoslim_json("train-supernet", "-r", recipe, *SWITCHABLE)
    assert list(result["widths"]) == ["width-1", "width-0.5"]
    assert result["widths"]["width-0.5"]["top1"] > 0.3
    supernet = recipe / "supernet.safetensors"
    row = autoslim_json("extract", "--width", "0.5", "-r", recipe, *SWITCHABLE)
    assert row["top1"] == result["widths"]["width-0.5"]["top1"]
    assert row["flops"] == autoslim_json("info", row["path"])["fvcore_flops"]
    at = autoslim_json("evaluate", supernet, "--width", "0.5", *SWITCHABLE)
    assert at["top1"] == autoslim_json("evaluate", row["path"])["top1"]
    assert at == autoslim_json(
        "evaluate", supernet, "--width", "0.5", *SWITCHABLE, "data.holdout=90"
    )  # not scored on it
    assert "no switch" in refuse(2, "evaluate", supernet, "--width", "0.75", *SWITCHABLE)
    assert "--width names the switch to measure: 0.5, 1" in refuse(2, "evaluate", supernet, *SWITCHABLE)
    assert "bn: shared" in refuse(2, "search", "--flops", "50%", "-r", recipe, *SWITCHABLE)
    assert "extract --width" in refuse(2, "calibrate-bn", "--widths", "0.5", "-r", recipe, *SWITCHABLE)

    network = autoslim_cli.SlimmableNetwork.load(supernet)
    images = torch.randn(4, 1, 8, 8)
    plain, _ = autoslim_cli.load_model(row["path"])
    torch.testing.assert_close(network.at(width=0.5)(images), plain(images))
    assert not torch.allclose(network.at(width=1.0)(images), plain(images))
    with pytest.raises(UsageError, match=r"no switch width-0\.75"):
        network.at(width=0.75)


def test_retraining_goes_on_from_switches_and_is_taught_by_the_largest(autoslim_json, refuse, recipe):
    """With the BN that they were trained with: the network around them has one that was never trained."""
    own = ("-r", recipe, *SWITCHABLE, "retrain.epochs=1", "retrain.lr=1e-9")
    autoslim_json("train-supernet", *own)
    switch = autoslim_json("extract", "--width", "0.5", *own)
    tuned = autoslim_json("retrain", "--width", "0.5", "--from", "supernet", *own)
    before, after = (safetensors.torch.load_file(row["path"]) for row in (switch, tuned))
    for name, tensor in before.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(after[name], tensor, atol=1e-6, rtol=0)
    for width in ("0.75", "0.25"):
        said = refuse(2, "retrain", "--width", width, "--from", "supernet", *own)
        assert "retrain.start: no switch has these channels; there are width-1, width-0.5" in said
    project = open_project(load_recipe(recipe, [*SWITCHABLE, "retrain.teacher=supernet"]), recipe, Reporter())
    taught_by = teacher(project)
    largest_switch = load_supernet(project).extract(project.network.base, "width-1")
    assert taught_by is not None
    for name, tensor in largest_switch.state_dict().items():
        assert torch.equal(taught_by.state_dict()[name], tensor), name


def test_widths_and_switches_belong_together(refuse, recipe):
    assert "bn: switchable" in refuse(2, "train-supernet", "-r", recipe, "supernet.bn=switchable")
    assert "bn: switchable" in refuse(2, "train-supernet", "-r", recipe, "supernet.widths=[1.0]")
    for drawing_none in (SWITCHABLE, ["supernet.samples=2"]):
        own = ("supernet.draw_per_process=true", *drawing_none)
        assert "none are drawn" in refuse(2, "train-supernet", "-r", recipe, *own)
    assert "shared has no switches" in refuse(2, "extract", "--width", "1", "-r", recipe)


def test_found_networks_train_jointly_and_are_split(autoslim_json, refuse, worked):
    configs = [worked / "arch-30pct.json", worked / "arch-60pct.json"]
    alone = (worked / "model-60pct.safetensors").read_bytes()
    warm = ["retrain.start=supernet", "--from", "scratch"]  # as the message says of a recipe that starts so
    rows = autoslim_json("retrain", *configs, "--joint", "retrain.epochs=4", *warm)["networks"]
    assert [row["name"] for row in rows] == ["60pct", "30pct"]
    assert rows[0]["path"].endswith("model-60pct-joint.safetensors")
    assert (worked / "model-60pct.safetensors").read_bytes() == alone
    assert not list(worked.glob("*.old-*"))
    one, other = (safetensors.torch.load_file(row["path"]) for row in rows)
    count = min(len(one["conv1.weight"]), len(other["conv1.weight"]))
    assert torch.equal(one["conv1.weight"][:count], other["conv1.weight"][:count])  # shared
    assert not torch.equal(one["bn1.weight"][:count], other["bn1.weight"][:count])  # private
    for row in rows:
        assert row["top1"] > 0.2
        again = autoslim_json("evaluate", row["path"])
        assert (again["top1"], again["flops"]) == (row["top1"], row["flops"])
    assert "--joint takes several" in refuse(2, "retrain", *configs)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["retrain.start=supernet"], "retrain.start: supernet: with --joint networks start from scratch; add --from"),
        (["--from", "supernet"], "leave out --from"),
        (["retrain.teacher=supernet"], "retrain.teacher: supernet: with --joint"),
        (["--width", "0.5"], "leave out --width"),
        (["--uniform-flops", "50%", "--name", "both"], "leave out --name and --uniform-flops"),
    ],
)
def test_a_joint_training_refuses_what_it_would_ignore(refuse, worked, more, words):
    configs = [worked / "arch-30pct.json", worked / "arch-60pct.json"]
    assert words in refuse(2, "retrain", *configs, "--joint", "retrain.epochs=1", *more)


def test_two_configs_of_one_name_are_refused(refuse, worked):
    """Of what is made from them one would take the other's place."""
    one, other = worked / "arch-30pct.json", worked / "arch-60pct.json"
    assert "two or more" in refuse(2, "retrain", one, "--joint")
    (worked / "elsewhere").mkdir()
    copy = worked / "elsewhere" / "30pct.json"
    copy.write_bytes(other.read_bytes())
    said = refuse(2, "retrain", one, other, copy, "--joint", "-r", worked)
    assert f"{one} and {copy}: both are called 30pct" in said
    said = refuse(2, "calibrate-bn", "--channels", one, "--channels", copy, "-r", worked)
    assert f"{one} and {copy}: both are called 30pct" in said
    width = worked / "arch-width-0.5.json"
    width.write_bytes(one.read_bytes())
    said = refuse(2, "calibrate-bn", "--widths", "0.5", "--channels", width, "-r", worked)
    assert f"{width}: called width-0.5, as one of --widths is" in said
    assert not list(worked.glob("subnet-*"))


def test_the_spectrum_of_widths(autoslim_json, worked):
    result = autoslim_json("calibrate-bn", "--widths", "0.25:1.5:0.25", "--compare", "-r", worked)
    rows = result["subnetworks"]
    assert len(rows) == 6
    assert all(row["flops"] < after["flops"] for row, after in itertools.pairwise(rows))
    assert rows[2]["uncalibrated_top1"] < rows[2]["top1"]
    assert rows[-1]["uncalibrated_top1"] == rows[-1]["top1"]
    assert json.loads((worked / "spectrum.json").read_text())["subnetworks"] == rows
    pytest.importorskip("matplotlib")
    with Image.open(result["plot"]) as picture:
        assert picture.format == "PNG"


def test_a_supernet_switches_and_calibrates_at_run_time(autoslim_json, worked):
    (row,) = autoslim_json("calibrate-bn", "--widths", "0.5", "-r", worked)["subnetworks"]
    plain, config = autoslim_cli.load_model(row["path"])
    network = autoslim_cli.SlimmableNetwork.load(worked / "supernet.safetensors")
    images, labels = torch.randn(64, 1, 8, 8), torch.randint(10, (64,))
    for one in (network.at(width=0.5), plain):
        autoslim_cli.calibrate(one, [(images, labels)])
    torch.testing.assert_close(network(images), plain(images))
    scores = [
        evaluate(one, [(images, labels)], classification(10)) for one in (network.at(channels=config.channels), plain)
    ]
    assert scores[0] == scores[1]
    with pytest.raises(UsageError, match="conv1"):
        network.at(channels={**config.channels, "conv1": 99})


def test_a_supernet_narrower_than_the_base_network(autoslim_json, refuse, recipe):
    """It holds no more than its own width: the base network cannot be cut out of it."""
    narrow = ["-r", recipe, "supernet.width=0.75", "train.epochs=1"]
    widths = autoslim_json("train-supernet", *narrow)["widths"]
    assert list(widths) == ["largest", "smallest"]
    assert len(safetensors.torch.load_file(recipe / "supernet.safetensors")["conv1.weight"]) == 6  # 0.75 of 8
    (row,) = autoslim_json("calibrate-bn", "--widths", "0.75", *narrow)["subnetworks"]
    base = autoslim_json("info", row["path"])["base"]["flops"]
    assert row["flops"] == widths["largest"]["flops"] < base
    assert "0.75" in refuse(2, "calibrate-bn", "--widths", "1.0", *narrow)


def test_random_only_training_is_there_to_be_compared(autoslim_json, recipe):
    """Without the sandwich rule other sub-networks train, and no teacher: the weights are others, and they work."""
    trained = {}
    for sandwich in ("true", "false"):
        made = autoslim_json("train-supernet", "-r", recipe, f"supernet.sandwich={sandwich}", "--force")
        assert list(made["widths"]) == ["largest", "base", "smallest"]
        trained[sandwich] = safetensors.torch.load_file(recipe / "supernet.safetensors")
        assert made["widths"]["base"]["top1"] > 0.2
    changed = [name for name, weights in trained["true"].items() if not torch.equal(weights, trained["false"][name])]
    assert "conv1.weight" in changed
