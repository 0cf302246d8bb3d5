"""Settings of a training do what they say: precision, clipping."""

import errno
import json
import os
import shutil
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from torch import nn
from typer.testing import CliRunner

from autoslim_cli import Task, retrain
from autoslim_cli.cli.app import app
from autoslim_cli.files.checkpoint import MODEL, load_state, read_facts
from autoslim_cli.files.metric import Metric
from autoslim_cli.progress import Reporter
from autoslim_cli.recipe.loading import load_recipe
from autoslim_cli.stages.project import open_project
from autoslim_cli.stages.retrain import _ends_in_calibration
from autoslim_cli.training.gradient_sums import GradientSums
from autoslim_cli.training.state import State

pytestmark = pytest.mark.slow


@pytest.fixture
def retrained(autoslim_json, recipe):
    """Retrain the half-wide network with some settings; return its result and its weights."""

    def run(*settings):
        result = autoslim_json("retrain", "--width", "0.5", "-r", recipe, *settings)
        return result, safetensors.torch.load_file(result["path"])

    return run


def test_bf16_trains_fp32_weights_to_as_good_a_network(retrained):
    settings = ["retrain.epochs=6", "retrain.schedule=linear"]
    full, weights = retrained(*settings)
    half, other = retrained(*settings, "retrain.precision=bf16")
    assert {tensor.dtype for name, tensor in other.items() if "num_batches" not in name} == {torch.float32}
    assert not torch.equal(weights["conv1.weight"], other["conv1.weight"])  # it did compute in another precision
    assert half["top1"] > 0.3
    assert abs(half["top1"] - full["top1"]) < 0.2


def moved_by(factor, precision, epochs=1):
    """Train one layer, a step an epoch, on a loss of `factor` times its outputs; return what that adds to its weights.

    The gradient of each weight is `factor`, whatever the weights are, and a step adds up to the same.
    """
    layer, rate = nn.Linear(4, 2), 2**-10 / factor
    before = layer.weight.detach().clone()
    task = Task(
        "own",
        Metric(name="output", higher_is_better=False),
        loss=lambda outputs, targets: factor * outputs.float().sum(),
        statistics=lambda outputs, targets: outputs.sum(),
        score=lambda sums, images: sums[0],
    )
    images = [(torch.ones(1, 4), torch.zeros(1))]
    settings = {"precision": precision, "weight_decay": 0.0}
    steady = {
        "optimizer": lambda parameters: torch.optim.SGD(parameters, rate),
        "schedule": lambda optimizer, _: torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
    }
    retrain(layer, images, epochs=epochs, task=task, settings=settings, device="cpu", **steady)
    assert layer.weight.dtype == torch.float32
    return (layer.weight.detach() - before) * 2**10


def test_fp16_scales_its_loss():
    """Unscaled, gradients of 1e-9 are zero in fp16."""
    assert torch.tensor(1e-9).half() == 0
    torch.testing.assert_close(moved_by(1e-9, "fp16"), moved_by(1e-9, "fp32"), rtol=1e-2, atol=1e-4)


def test_fp16_skips_a_step_whose_gradients_overflow_and_scales_less_from_then_on():
    """1.5 times 65,536, the first scale, is infinite in fp16; half of it is not."""
    assert torch.equal(moved_by(1.5, "fp16"), torch.zeros(2, 4))
    torch.testing.assert_close(moved_by(1.5, "fp16", epochs=2), moved_by(1.5, "fp32"), rtol=1e-2, atol=1e-4)


def test_micro_batches_add_up_to_the_batch(autoslim_json, recipe):
    """Without BN parts of a batch are the batch. Parts are of equal size, to an image: none is left over."""
    text = (recipe / "recipe.yaml").read_text()
    model = 'name: "autoslim/cifar_resnet", args: {depth: 8, in_channels: 1, width: 8}'
    (recipe / "recipe.yaml").write_text(text.replace(model, 'name: "./net.py:make"'))
    (recipe / "net.py").write_text(NO_NORMS)
    command = ("retrain", "--width", "1", "-r", recipe, "retrain.lr=0.05")
    whole, parts = (
        safetensors.torch.load_file(autoslim_json(*command, *more)["path"])
        for more in ((), ("retrain.micro_batch=15",))
    )
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-3, atol=1e-5)


NO_NORMS = """
from torch import nn


def make(num_classes):
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(16, num_classes))
"""


@pytest.mark.parametrize("command", [("train-supernet",), ("retrain", "--width", "0.5")])
def test_one_backward_pass_of_a_step_is_the_last(command, autoslim, recipe, monkeypatch):
    """That of the last sub-network of the last micro-batch: sums over processes begin in it."""
    seen = []
    monkeypatch.setattr(GradientSums, "watch", lambda self, loss: seen.append(loss.grad_fn is not None))
    settings = (f"{section}.{one}" for section in ("train", "retrain") for one in ("epochs=1", "micro_batch=30"))
    autoslim(*command, "-r", recipe, *settings)
    (metrics,) = recipe.glob("*.metrics.jsonl")
    assert seen == [True] * max(json.loads(line)["step"] for line in metrics.read_text().splitlines())


def test_activation_checkpointing_changes_memory_alone(autoslim, refuse, recipe, tmp_path):
    """Weights are those of a training without it, to the bit, and what was trained without it is current with it."""
    lean = shutil.copytree(recipe, tmp_path / "lean")
    commands = (("train-supernet",), ("retrain", "--width", "0.5"))
    said = []
    for directory, switch in ((recipe, "false"), (lean, "true")):
        for command in commands:
            settings = (f"{section}.activation_checkpointing={switch}" for section in ("train", "retrain"))
            done = autoslim(*command, "-r", directory, "train.epochs=1", "retrain.epochs=1", *settings)
            said.append(done.stderr.split("a step takes about ")[1].split(",")[0])
    assert said[0] != said[2]
    for name in ("supernet", "model-width-0.5"):
        one, other = (safetensors.torch.load_file(d / f"{name}.safetensors") for d in (recipe, lean))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name
    keeping = ("-r", recipe, "train.epochs=1", "train.activation_checkpointing=true", "--resume")
    assert "training 1 epochs" not in autoslim("train-supernet", *keeping).stderr
    model = 'name: "autoslim/cifar_resnet", args: {depth: 8, in_channels: 1, width: 8}'
    text = (recipe / "recipe.yaml").read_text().replace(model, 'name: "./net.py:make"')
    (lean / "recipe.yaml").write_text(text)
    (lean / "net.py").write_text(NO_NORMS)
    line = refuse(2, "retrain", "--width", "1", "-r", lean, "retrain.activation_checkpointing=true")
    assert "no blocks of this network save" in line


def set_memory(monkeypatch, free):
    monkeypatch.setattr("autoslim_cli.training.loop.free_memory", lambda *_: free)


def test_a_step_that_does_not_fit_is_refused(autoslim, refuse, recipe, monkeypatch):
    """So is calibration or evaluation, which come when all training is done."""
    command = ["retrain", "--width", "1", "-r", recipe, "retrain.epochs=1", "retrain.calibrate=true"]
    set_memory(monkeypatch, 2**20)
    for key, images in (("retrain.batch", 64), ("calibrate.batch", 128), ("evaluate.batch", 360)):
        line = refuse(2, *command)
        assert key in line
        assert f" over {images} images" in line
        fits = line.split("set ")[1].split(",")[0]
        assert fits.startswith("retrain.micro_batch=" if key == "retrain.batch" else f"{key}=")
        command.append(fits)
    assert not list(recipe.glob("model-*"))
    said = autoslim(*command).stderr
    assert "a step takes about" in said
    assert "without gradients takes about: calibrate.batch 1 MiB, evaluate.batch 1 MiB" in said
    set_memory(monkeypatch, 2**10)
    assert "take a smaller network" in refuse(2, *command, "retrain.epochs=2")


@pytest.mark.parametrize("switchable", [False, True])
def test_looks_at_a_supernet_that_do_not_fit_are_refused(refuse, recipe, monkeypatch, switchable):
    command = [
        "train-supernet",
        "-r",
        recipe,
        "train.epochs=1",
        "train.batch=8",
        "calibrate.batch=512",
        "train.save_steps=1",
    ]
    command += ["supernet.bn=switchable", "supernet.widths=[0.5,1]"] if switchable else []
    set_memory(monkeypatch, 3 * 2**20 // 2)
    for key in ("evaluate.batch",) if switchable else ("evaluate.batch", "calibrate.batch"):
        line = refuse(2, *command)
        command.append(line.split("set ")[1])
        assert command[-1].startswith(f"{key}=")
    assert stopped_at(monkeypatch, 1, *command) == [1]


def test_looks_at_networks_trained_jointly_that_do_not_fit_are_refused(refuse, worked, monkeypatch):
    command = ["retrain", worked / "arch-60pct.json", worked / "arch-30pct.json", "--joint", "retrain.calibrate=true"]
    set_memory(monkeypatch, 2**20)
    line = refuse(2, *command, "retrain.micro_batch=4", "calibrate.batch=256", "evaluate.batch=16")
    assert "calibrate.batch: a forward pass over 256 images" in line


def test_a_teacher_counts_among_what_a_step_takes(refuse, autoslim, recipe, monkeypatch):
    command = ["retrain", "--width", "1", "-r", recipe, "retrain.epochs=1"]
    autoslim(*command)
    monkeypatch.setattr("autoslim_cli.stages.retrain.values_held", lambda network, inputs: 2**40)
    line = refuse(2, *command, "--name", "taught", "retrain.teacher=model-width-1.safetensors")
    assert "retrain.batch: a step over 64 images at a time takes about 262144.0 GiB" in line


def test_bf16_trains_a_supernet(autoslim_json, recipe):
    made = autoslim_json("train-supernet", "-r", recipe, "train.precision=bf16", "train.epochs=6")
    assert made["widths"]["base"]["top1"] > 0.3


def test_clipping_bounds_what_a_training_moves(retrained):
    """A gradient clipped to next to nothing moves no weight; BN statistics and one epoch more cannot tell otherwise."""
    still = ["retrain.weight_decay=0"]

    def moved(*settings):
        one, two = (retrained(*still, f"retrain.epochs={epochs}", *settings)[1] for epochs in (1, 2))
        return (one["conv1.weight"] - two["conv1.weight"]).norm().item()

    assert moved("retrain.clip=1e-6") < 1e-4
    assert moved() > 1e-2


RESUMED = {
    "adamw, averaged": ("optimizer=adamw", "lr=0.01", "ema=0.9", "schedule=one-cycle", "warmup=0.3"),
    "the best epoch": ("keep=best", "lr=1.5", "epochs=4"),
    "until it is no better": ("patience=1", "keep=best", "lr=1.5", "epochs=20", "ema=0.5"),
    "mixed": ("schedule=cosine",),
    "fp16, in parts": ("precision=fp16", "micro_batch=20"),
}


@pytest.mark.parametrize("settings", RESUMED.values(), ids=RESUMED)
@pytest.mark.parametrize("section", ["retrain", "train"])
@pytest.mark.parametrize("every", [4, 7])
def test_a_resumed_training_ends_in_the_same_bytes(autoslim, recipe, tmp_path, monkeypatch, every, section, settings):
    """Each start ends right after its fourth or seventh save: what a kill leaves behind.

    An epoch has seven steps: the seventh save is the one before the look at the holdout.
    """
    killed = shutil.copytree(recipe, tmp_path / "killed")
    command = ["train-supernet"] if section == "train" else ["retrain", "--width", "0.5"]
    more = [f"{section}.{setting}" for setting in (*settings, "save_minutes=0.00001")]
    if settings == RESUMED["mixed"]:
        more += [f"data.augment.{setting}" for setting in ("mixup=0.2", "cutmix=1", "erase=0.5", "policy=trivial")]
    said = autoslim(*command, "-r", recipe, *more).stderr
    name = "supernet" if section == "train" else "model-width-0.5"
    save, saves = State.save, []

    def save_and_die(*arguments):
        save(*arguments)
        saves.append(arguments)
        if len(saves) % every == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(State, "save", save_and_die)
    resume = []
    while not (killed / f"{name}.safetensors").exists():
        code = CliRunner().invoke(app, [*command, "-r", str(killed), *more, *resume]).exit_code
        assert code in (0, 130)
        resume = ["--resume"]
    assert len(saves) > 8
    assert (killed / f"{name}.safetensors").read_bytes() == (recipe / f"{name}.safetensors").read_bytes()
    assert ("kept the weights of epoch" in said) == ("keep=best" in settings)
    assert ("no lower holdout loss in 1 epochs" in said) == ("patience=1" in settings)


@pytest.mark.parametrize("moment", [1, 4, 7])
def test_a_full_disk_leaves_the_last_good_state(autoslim, refuse, recipe, tmp_path, monkeypatch, moment):
    full = shutil.copytree(recipe, tmp_path / "full")
    command = ["train-supernet", "train.epochs=2", "train.save_minutes=0.00001", "train.keep_states=3"]
    autoslim(*command, "-r", recipe)
    fsync, calls = os.fsync, []

    def no_space(handle):
        calls.append(handle)
        if len(calls) > moment:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        assert "no space left on the disk" in refuse(1, *command, "-r", full)
    states = sorted(path.name for path in full.glob("*.pt"))
    numbers = ["supernet.resume-1.pt", "supernet.resume-2.pt", "supernet.resume.pt"]
    assert states == {1: [], 4: numbers, 7: numbers}[moment]
    assert not list(full.glob(".*.part"))
    autoslim(*command, "-r", full, "--resume")
    assert not list(full.glob("*.pt"))
    assert (full / "supernet.safetensors").read_bytes() == (recipe / "supernet.safetensors").read_bytes()


def stopped_at(monkeypatch, count, *command):
    """Run a command that is ended right after so many saves of its state; return the steps done at each."""
    save, saves = State.save, []

    def save_and_die(state, job, done):
        save(state, job, done)
        saves.append(done)
        if len(saves) == count:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(State, "save", save_and_die)
        assert CliRunner().invoke(app, list(map(str, command))).exit_code == 130
    return saves


def test_each_older_state_is_the_one_before_and_can_be_gone_on_from(autoslim, recipe, tmp_path, monkeypatch):
    """As docs/training.md says: given the name of the last one. An epoch has nine steps."""
    killed = shutil.copytree(recipe, tmp_path / "killed")
    command = ["retrain", "--width", "0.5", "retrain.epochs=2", "retrain.save_steps=2", "retrain.keep_states=3", "-r"]
    autoslim(*command, recipe)
    assert stopped_at(monkeypatch, 6, *command, killed) == [2, 4, 6, 8, 9, 10]
    states = [killed / f"model-width-0.5.resume{older}.pt" for older in ("", "-1", "-2")]
    assert [load_state(path)["done"] for path in states] == [10, 9, 8]
    states[1].rename(states[0])
    assert "resuming after step 9" in autoslim(*command, killed, "--resume").stderr
    assert (killed / "model-width-0.5.safetensors").read_bytes() == (
        recipe / "model-width-0.5.safetensors"
    ).read_bytes()


def test_how_often_a_state_is_saved_decides_no_result(autoslim, recipe, monkeypatch):
    """A training may stop with other settings of it than it goes on with, and what is made is current with any."""
    command = ["retrain", "--width", "0.5", "-r", recipe]
    assert stopped_at(monkeypatch, 2, *command, "retrain.save_steps=3") == [3, 6]
    assert "resuming after step 6" in autoslim(*command, "--resume", "retrain.save_steps=5").stderr
    assert "is there and current" in autoslim(*command, "--resume").stderr


def test_what_is_read_after_the_last_step_alone_may_change_before(autoslim, refuse, recipe, tmp_path, monkeypatch):
    """Memory that runs out in the calibration at the end costs no training; nor does a change of mind about it."""
    killed, name = shutil.copytree(recipe, tmp_path / "killed"), "model-width-0.5"
    command = ["retrain", "--width", "0.5", "retrain.epochs=1", "retrain.calibrate=true", "-r"]
    stopped_at(monkeypatch, 1, *command, killed)
    state = (killed / f"{name}.resume.pt").read_bytes()
    line = refuse(4, *command, killed, "--resume", "calibrate.batch=64", "retrain.label_smoothing=0.1")
    assert "retrain.label_smoothing was 0.0, is 0.1" in line
    autoslim(*command, killed, "--resume", "retrain.calibrate=false")
    (killed / f"{name}.resume.pt").write_bytes(state)
    assert "resuming after step 9" in autoslim(*command, killed, "--resume", "calibrate.batch=64").stderr
    made_from = read_facts(killed / f"{name}.safetensors", MODEL, "")["made_from"]
    assert made_from["recipe"]["calibrate"]["batch"] == 64
    autoslim(*command, recipe, "calibrate.batch=64")
    assert (killed / f"{name}.safetensors").read_bytes() == (recipe / f"{name}.safetensors").read_bytes()


def test_what_the_looks_at_the_holdout_read_may_not_change(refuse, recipe, monkeypatch):
    command = ["retrain", "--width", "0.5", "-r", recipe, "retrain.patience=2", "retrain.calibrate=true"]
    stopped_at(monkeypatch, 1, *command)
    assert "calibrate.batch was 128, is 64" in refuse(4, *command, "--resume", "calibrate.batch=64")
    assert "retrain.calibrate was True, is auto" in refuse(4, *command[:-1], "--resume", "retrain.ema=null")


def test_the_best_epoch_needs_a_holdout(autoslim, recipe):
    """A retraining that the holdout decides does not train on it."""
    both = ["retrain", "--width", "0.5", "-r", recipe, "retrain.epochs=1"]
    assert "holdout" not in autoslim(*both).stderr
    said = autoslim(*both, "retrain.keep=best", "--name", "best").stderr
    assert "holdout top-1" in said
    assert "kept the weights of epoch 1" in said


@pytest.mark.parametrize(("more", "measured"), [({}, False), ({"patience": 3}, True), ({"keep": "best"}, True)])
def test_statistics_are_measured_where_a_training_may_end_with_initial_ones(recipe, more, measured):
    """A momentum that 1,000 epochs outlast, and one does not."""
    text = (recipe / "recipe.yaml").read_text()
    (recipe / "recipe.yaml").write_text(text.replace("autoslim/cifar_resnet", "./net.py:slow"))
    (recipe / "net.py").write_text(
        "from autoslim_cli.models.built_in import FACTORIES\n"
        "def slow(**settings):\n"
        "    network = FACTORIES['cifar_resnet'](**settings)\n"
        "    for module in network.modules():\n"
        "        if hasattr(module, 'momentum'):\n"
        "            module.momentum = 0.01\n"
        "    return network\n"
    )
    project = open_project(load_recipe(recipe), recipe, Reporter())
    retrain = project.recipe.retrain.model_copy(update={"epochs": 1000, **more})
    project = replace(project, recipe=project.recipe.model_copy(update={"retrain": retrain}))
    assert _ends_in_calibration(project) is measured
