"""A file that somebody else gave must not choose what code is called."""

import sys
import textwrap

import pytest
from artifacts import rewritten

from autoslim_cli import SlimmableNetwork, load_model
from autoslim_cli.errors import UsageError
from autoslim_cli.models.zoo import build
from autoslim_cli.recipe.schema import ModelSettings

PAYLOAD = """\
from pathlib import Path
from torch import nn
(Path(__file__).parent / "ran").touch()
class Net(nn.Module):
    def __init__(self, num_classes, hidden=8):
        super().__init__()
        (Path(__file__).parent / "ran").touch()
        self.a = nn.Conv2d(1, hidden, 3)
        self.fc = nn.Linear(hidden, num_classes)
    def forward(self, x):
        return self.fc(self.a(x).mean((2, 3)))
"""
OWN = ("model.name=./payload.py:Net", "model.args={}")


@pytest.fixture
def gift(tmp_path, monkeypatch):
    """A directory with a payload, which is also the current one, and files that name it; it holds no recipe."""
    directory = tmp_path / "gift"
    directory.mkdir()
    (directory / "payload.py").write_text(PAYLOAD)
    (directory / "hubconf.py").write_text(PAYLOAD)
    monkeypatch.chdir(directory)
    monkeypatch.syspath_prepend(directory)
    yield directory
    for name in ("payload", "hubconf"):
        sys.modules.pop(name, None)


NAMES = {
    "file": ("./payload.py:Net", {}),
    "package": ("payload:Net", {}),
    "hub": ("torch.hub:load", {"repo_or_dir": ".", "model": "Net", "source": "local"}),
    "elsewhere": ("torchvision.models:resnet18", {"weights": "DEFAULT"}),
}


def naming(target, source, name, args):
    """Write a channel config or a checkpoint that names another factory."""

    def change(facts):
        for model in (facts.get("model"), facts.get("config", {}).get("model")):
            if model:
                model.update(name=name, args=args)

    return rewritten(source, change, target)


ARCH, MODEL, SUPERNET = "arch-60pct.json", "model-60pct.safetensors", "supernet.safetensors"
READING = [
    *((command, kind) for command in (["info"], ["compare"]) for kind in (ARCH, MODEL, SUPERNET)),
    *((["export", form], kind) for form in ("--onnx", "--torch-export", "--state-dict") for kind in (ARCH, MODEL)),
    (["evaluate", "-r", "RECIPE"], MODEL),
]


@pytest.mark.parametrize("payload", NAMES)
@pytest.mark.parametrize(("command", "kind"), READING, ids=lambda value: value if isinstance(value, str) else value[-1])
def test_a_gift_runs_nothing(refuse, worked, gift, command, kind, payload):
    name, args = NAMES[payload]
    path = naming(gift / kind, worked / kind, name, args)
    line = refuse(2, *[worked if word == "RECIPE" else word for word in command], path)
    beside = f"{worked if 'RECIPE' in command else gift}/"
    assert f" would call {beside + 'payload.py:Net' if payload == 'file' else name}(" in line
    assert "num_classes=10)" in line
    assert "--trust" in line
    assert not (gift / "ran").exists()


@pytest.mark.parametrize("payload", NAMES)
def test_a_gift_runs_nothing_in_a_library(worked, gift, payload):
    for read, kind in ((load_model, MODEL), (SlimmableNetwork.load, SUPERNET)):
        path = naming(gift / kind, worked / kind, *NAMES[payload])
        with pytest.raises(UsageError, match=r"would call .* trust=True"):
            read(path)
    assert not (gift / "ran").exists()


@pytest.mark.parametrize("payload", NAMES)
@pytest.mark.parametrize("command", ["search", "run"])
def test_a_gift_runs_nothing_as_a_teacher(refuse, worked, gift, payload, command):
    teacher = naming(gift / MODEL, worked / MODEL, *NAMES[payload])
    settings = (f"retrain.teacher={teacher}", "retrain.epochs=1")
    line = refuse(2, "retrain", worked / ARCH, "--name", "taught", *settings)
    assert "would call" in line
    more = ("search.rivals=[magnitude]",) if command == "search" else ()
    line = refuse(2, command, "--flops", "50%", "-r", worked, *settings, *more, "search.trial_epochs=1")
    assert "would call" in line
    assert not (gift / "ran").exists()


@pytest.mark.parametrize("payload", NAMES)
def test_commands_that_build_from_the_recipe_alone_run_nothing(autoslim, refuse, worked, gift, payload):
    """Files of another model than the recipe's are refused, or left out, before anything is built."""
    name, args = NAMES[payload]
    arch = naming(gift / ARCH, worked / ARCH, name, args)
    other = naming(gift / "arch-1M.json", worked / ARCH, name, args)
    for command in (["retrain", arch], ["retrain", "--joint", arch, other], ["calibrate-bn", "--channels", arch]):
        assert "a config for " in refuse(4, *command, "-r", worked)
    for kind in (ARCH, MODEL, SUPERNET):
        naming(worked / kind, worked / kind, name, args)
    for command in (["search", "--flops", "60%"], ["calibrate-bn", "--widths", "0.5"]):
        assert "trained for another model" in refuse(4, *command, "-r", worked)
    assert "a config for " in refuse(4, "retrain", worked / ARCH)
    said = autoslim("report", "-r", worked).stderr
    assert said.count("left out: ") == 3
    switchable = ("supernet.bn=switchable", "supernet.widths=[0.5, 1.0]")
    for command in (["extract", "--width", "0.5"], ["evaluate", worked / SUPERNET, "--width", "0.5"]):
        assert "trained for another model" in refuse(4, *command, "-r", worked, *switchable)
    assert not (gift / "ran").exists()


def test_the_recipe_that_names_the_very_same_factory_is_trusted(autoslim, autoslim_json, refuse, recipe, gift):
    (recipe / "payload.py").write_text(PAYLOAD)
    made = ("-r", recipe, *OWN, "retrain.epochs=1")
    model = autoslim_json("retrain", "--width", "1", *made)["path"]
    assert autoslim_json("evaluate", model, *OWN)["flops"]
    # The one that the file lies in names another network: an override said this one.
    assert "the recipe in use names autoslim/cifar_resnet" in refuse(2, "info", model)
    text = (recipe / "recipe.yaml").read_text()
    named = text.replace("autoslim/cifar_resnet", "./payload.py:Net").replace("depth: 8, in_channels: 1, width: 8", "")
    (recipe / "recipe.yaml").write_text(named)
    autoslim("evaluate", model)
    for command in (["info"], ["compare"], ["export", "--state-dict"]):
        autoslim(*command, model)
    # With other arguments it is not the very same.
    source, target = recipe / "model-width-1.safetensors", recipe / "model-args.safetensors"
    line = refuse(2, "evaluate", naming(target, source, "./payload.py:Net", {"hidden": 9}))
    assert "payload.py:Net(hidden=9, num_classes=10), and the recipe in use gives other arguments" in line
    # A file that lies elsewhere has that recipe if it is named, and its ./payload.py, not the file's own.
    given = gift / "model-given.safetensors"
    given.write_bytes(source.read_bytes())
    (gift / "ran").unlink(missing_ok=True)
    assert "no recipe in use names it" in refuse(2, "info", given)
    autoslim("evaluate", given, "-r", recipe)
    assert not (gift / "ran").exists()


def test_a_broken_recipe_names_nothing(refuse, worked, gift):
    (gift / "recipe.yaml").write_text("model: [")
    path = naming(gift / ARCH, worked / ARCH, *NAMES["file"])
    assert "no recipe in use names it" in refuse(2, "info", path)
    assert not (gift / "ran").exists()


def test_what_is_trusted_is_called(autoslim, autoslim_json, recipe, gift):
    (recipe / "payload.py").write_text(PAYLOAD)
    model = gift / MODEL
    made = autoslim_json("retrain", "--width", "1", "-r", recipe, *OWN, "retrain.epochs=1")["path"]
    model.write_bytes((recipe / made.rpartition("/")[2]).read_bytes())
    for command in (["info"], ["compare"], ["export", "--state-dict"]):
        autoslim(*command, model, "--trust")
        assert (gift / "ran").exists()
        (gift / "ran").unlink()
    assert load_model(model, trust=True)[1].model.name == "./payload.py:Net"
    assert load_model(model, recipe, trust=True)[1].model.name == "./payload.py:Net"
    autoslim("evaluate", model, "-r", recipe, "--trust")
    taught = (f"retrain.teacher={model}", "retrain.epochs=1", "--name", "taught", "--trust")
    autoslim("retrain", "--width", "1", "-r", recipe, *taught)


def test_what_would_be_called_is_said_in_a_line_that_a_person_reads(refuse, worked, gift):
    path = naming(gift / ARCH, worked / ARCH, "os:\x1b[2Jsystem", {"command": "a" * 100_000, "x\n": "\x07"})
    line = refuse(2, "info", path)
    assert "os:\\x1b[2Jsystem(command='aaa" in line
    assert len(line) < 1000
    assert line.isprintable()


def test_a_file_with_the_name_of_a_factory_is_a_file(refuse, gift):
    """A pattern of the shell, `autoslim info *`, may give it."""
    (gift / "payload.py:Net").write_text("x")
    assert "a text file, and no checkpoint" in refuse(4, "info", "payload.py:Net")
    assert not (gift / "ran").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("weights", value) for value in ("DEFAULT", None)),
        *(("pretrained", True), ("weights_backbone", "DEFAULT"), ("checkpoint_path", "weights"), ("cache_dir", "x")),
        *(("pretrained_cfg_overlay", {"file": "w"}), ("pretrained_cfg", {"url": "http"})),
        *(("norm_layer", "a/b"), ("norm_layer", "~"), ("x", ["w.pth"]), ("x", {"a": {"https://x": 1}})),
    ],
)
@pytest.mark.parametrize("name", ["torchvision/resnet18", "autoslim/cifar_resnet"])
def test_listed_networks_are_built_without_files_and_downloads(refuse, worked, gift, name, key, value):
    path = naming(gift / ARCH, worked / ARCH, name, {key: value})
    assert f"model.args.{key}: " in refuse(2, "info", path)


@pytest.mark.parametrize(
    "name", ["torchvision/get_model", "torchvision/resnet.ResNet", "torchvision/vgg", "autoslim/nn"]
)
def test_attributes_are_no_networks(name):
    with pytest.raises(UsageError, match=r"model\.name: "):
        build(ModelSettings(name=name, input=(3, 32, 32), classes=10))


def test_timm_s_networks_are_those_of_its_registry(monkeypatch, tmp_path):
    (tmp_path / "timm.py").write_text(
        textwrap.dedent(
            """
            asked = []
            def is_model(name):
                return name.partition(".")[0] == "resnet18"
            def list_models():
                return ["resnet18"]
            def create_model(name, **arguments):
                from torch import nn
                asked.append((name, arguments))
                return nn.Identity()
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    import timm

    for name in ("resnet18.hf-hub:somebody/net", "hf-hub:somebody/net", "local-dir:/tmp", "create_model"):
        with pytest.raises(UsageError, match="timm has no network"):
            build(ModelSettings(name=f"timm/{name}", input=(3, 32, 32), classes=10))
    loading = ModelSettings(name="timm/resnet18", args={"checkpoint_path": "w"}, input=(3, 32, 32), classes=10)
    with pytest.raises(UsageError, match=r"model\.args\.checkpoint_path"):
        build(loading)
    assert timm.asked == []
    build(ModelSettings(name="timm/resnet18.a1", args={"act_layer": "silu"}, input=(3, 32, 32), classes=10))
    assert timm.asked == [("resnet18.a1", {"pretrained": False, "num_classes": 10, "act_layer": "silu"})]
    del sys.modules["timm"]  # not by monkeypatch, which would put it back
