"""What a training writes down while it runs, and that it does not wait for the device to know it."""

import json
import signal

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from autoslim_cli.training import loop, trained
from autoslim_cli.training.state import State


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_supernet_writes_the_losses_of_its_subnetworks(autoslim, recipe):
    autoslim("train-supernet", "-r", recipe, "train.epochs=2", "train.batch=15")  # 30 steps an epoch
    rows = rows_of(recipe / "supernet.metrics.jsonl")
    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == [20, 30, 50, 60]
    assert [row["epoch"] for row in steps] == [1, 1, 2, 2]
    assert all(list(row["loss"]) == ["largest", "random 1", "random 2", "smallest"] for row in steps)
    assert all(row["images_per_second"] > 0 and 0 <= row["waiting"] < 1 and row["memory"] > 2**20 for row in steps)
    assert steps[0]["rate"] > steps[-1]["rate"]
    assert [row["step"] for row in rows if "holdout" in row] == [30, 60]


def test_a_resumed_training_drops_what_came_after_its_state(autoslim, recipe, monkeypatch):
    command = ("retrain", "--width", "0.5", "-r", recipe, "retrain.batch=20", "retrain.epochs=2")  # 30 steps an epoch
    autoslim(*command)
    path, final = recipe / "model-width-0.5.metrics.jsonl", recipe / "model-width-0.5.safetensors"
    whole = [(row["step"], row["loss"]) for row in rows_of(path)]
    final.unlink()
    save = State.save

    def save_and_die(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(State, "save", save_and_die)
        autoslim(*command, code=130)
    with path.open("a") as file:  # lines of steps that are lost, and one that a kill cut short
        file.write('{"step": 40, "loss": {"loss": 9}}\n{"step": 50, "lo')
    autoslim(*command, "--resume")
    assert [(row["step"], row["loss"]) for row in rows_of(path)] == whole


def test_a_look_that_no_state_holds_is_written_once(autoslim, recipe, monkeypatch):
    """A kill between the line of the holdout and the state: the look is taken again."""
    command = ("train-supernet", "-r", recipe, "train.epochs=2", "train.save_minutes=0.00001")  # 7 steps an epoch
    save, saves = State.save, []

    def die_at_the_end_of_the_epoch(*arguments):
        saves.append(arguments)
        if len(saves) == 8:
            raise KeyboardInterrupt
        save(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(State, "save", die_at_the_end_of_the_epoch)
        autoslim(*command, code=130)
    path = recipe / "supernet.metrics.jsonl"
    assert [row["step"] for row in rows_of(path) if "holdout" in row] == [7]
    said = autoslim(*command, "--resume").stderr
    assert "resuming after step 7" in said
    assert [line.split()[1] for line in said.splitlines() if line.startswith("epoch ")] == ["1/2", "2/2"]
    assert [row["step"] for row in rows_of(path) if "holdout" in row] == [7, 14]


def test_the_loss_of_an_epoch_that_was_interrupted_is_of_all_its_steps(autoslim, recipe, monkeypatch):
    command = ("retrain", "--width", "0.5", "-r", recipe, "retrain.batch=20", "retrain.epochs=2")  # 30 steps an epoch

    def losses(result):
        return [line.split()[3] for line in result.stderr.splitlines() if line.startswith("epoch ")]

    whole = losses(autoslim(*command))
    assert len(whole) == 2
    (recipe / "model-width-0.5.safetensors").unlink()
    step, steps = State.step, []

    def stop_in_the_middle(*arguments):
        step(*arguments)
        steps.append(1)
        if len(steps) == 25:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(State, "step", stop_in_the_middle)
        assert losses(autoslim(*command, code=130)) == []
    resumed = autoslim(*command, "--resume")
    assert "resuming after step 25" in resumed.stderr
    assert losses(resumed) == whole


class Waits(TorchDispatchMode):
    """Count what makes the host wait for a device: a value that is asked for."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count += operation in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("command", ["train-supernet --force", "retrain --width 0.5"])
def test_steps_wait_for_nothing(autoslim, recipe, monkeypatch, command):
    """Within an epoch the host asks for values as often as it looks, however many steps there are; and once to save."""
    counted, tolist = [], torch.Tensor.tolist

    def fit(*arguments, **options):
        asked = []
        monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: asked.append(1) or tolist(tensor))
        with Waits() as waits:
            loop.fit(*arguments, **options)
        monkeypatch.setattr(torch.Tensor, "tolist", tolist)
        counted.append(waits.count + len(asked))

    monkeypatch.setattr(trained, "fit", fit)
    monkeypatch.setattr("autoslim_cli.stages.train_supernet.scores_at", lambda *_: {})
    monkeypatch.setattr("autoslim_cli.training.loop._look", lambda *_: None)
    section, images = ("train", 450) if command.startswith("train") else ("retrain", 600)
    more = [f"{section}.epochs=1", "data.augment.color_jitter=0.2", f"{section}.clip=5"]
    for batch in (30, 9):
        autoslim(*command.split(), "-r", recipe, *more, f"{section}.batch={batch}")
        assert counted.pop() == -(-(images // batch) // loop.LOOK_EVERY) + 1
