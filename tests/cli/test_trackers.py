"""What watches a training beside its own file: TensorBoard's events, and runs of W&B and MLflow."""

import json
import sys
from types import ModuleType

import pytest

SHORT = ("train.epochs=1", "train.batch=15")  # 30 steps


def metrics_of(directory, name="supernet"):
    return [json.loads(line) for line in (directory / f"{name}.metrics.jsonl").read_text().splitlines()]


def test_tensorboard_has_every_number_of_the_metrics(autoslim, recipe):
    autoslim("train-supernet", "-r", recipe, "track=[tensorboard]", *SHORT)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(recipe / "runs" / "supernet"))
    events.Reload()
    written = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    rows = metrics_of(recipe)
    losses = [(row["step"], row["loss"]["random 1"]) for row in rows if "loss" in row]
    assert [step for step, _ in written["loss/random 1"]] == [step for step, _ in losses] == [20, 30]
    assert [value for _, value in written["loss/random 1"]] == pytest.approx([value for _, value in losses])
    assert {"rate", "images_per_second", "waiting", "memory", "holdout/loss"} <= set(written)


@pytest.fixture
def stand_ins(monkeypatch):
    """Stand-ins for wandb and mlflow that keep what they are told, as their documented functions take it."""
    told = []

    class Run:
        def __enter__(self):
            return self

        def __exit__(self, kind, *_):
            told.append(("ended", kind and kind.__name__))

        def log(self, values, step):
            told.append((step, values))

    wandb, mlflow = ModuleType("wandb"), ModuleType("mlflow")
    wandb.init = lambda name, dir, config: told.append((name, sorted(config))) or Run()
    mlflow.start_run = lambda run_name: told.append((run_name,)) or Run()
    mlflow.log_dict = lambda values, _name: told.append(sorted(values))
    mlflow.log_metrics = lambda values, step: told.append((step, values))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    return told


def test_runs_are_begun_told_of_every_row_and_ended(autoslim, recipe, stand_ins):
    autoslim("retrain", "--width", "0.5", "-r", recipe, "track=[wandb,mlflow]", "retrain.epochs=1", "retrain.batch=20")
    assert stand_ins[0] == ("tiny/model-width-0.5", ["calibrate", "data", "model", "retrain", "seed", "task"])
    rows = [row["step"] for row in metrics_of(recipe, "model-width-0.5")]
    assert [one[0] for one in stand_ins if isinstance(one[0], int)] == [step for step in rows for _ in range(2)]
    assert stand_ins[-2:] == [("ended", None), ("ended", None)]


def test_a_run_ends_where_a_training_fails(autoslim, recipe, stand_ins):
    done = autoslim("train-supernet", "-r", recipe, "track=[wandb]", "train.lr=1e30", *SHORT, code=1)
    assert "not finite" in done.stderr
    assert stand_ins[-1] == ("ended", "AutoslimError")


def test_a_tracker_that_cannot_begin_is_one_line(autoslim, recipe, stand_ins, monkeypatch):
    def no_server(run_name):
        raise RuntimeError("no server at all\nTry another")

    monkeypatch.setattr(sys.modules["mlflow"], "start_run", no_server)
    done = autoslim("train-supernet", "-r", recipe, "track=[wandb,mlflow]", *SHORT, code=2)
    assert done.stderr.splitlines()[-1] == "error: track: mlflow cannot begin: no server at all"
    assert stand_ins[-1] == ("ended", "UsageError")  # wandb's run, which had begun


def test_no_training_is_lost_to_a_tracker_that_fails(autoslim, recipe, stand_ins, monkeypatch):
    def gone(_values, step):
        raise ConnectionError(f"gone at {step}")

    monkeypatch.setattr(sys.modules["mlflow"], "log_metrics", gone)
    done = autoslim("train-supernet", "-r", recipe, "track=[mlflow]", *SHORT)
    assert done.stderr.count("takes nothing any more: gone at 20") == 1
    assert (recipe / "supernet.safetensors").exists()


def test_a_tracker_that_is_not_installed_is_named(autoslim, recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    done = autoslim("train-supernet", "-r", recipe, "track=[wandb]", *SHORT, code=2)
    assert "autoslim[wandb]" in done.stderr


def test_what_watches_a_training_makes_no_other_result(autoslim, recipe):
    autoslim("train-supernet", "-r", recipe, *SHORT)
    done = autoslim("train-supernet", "-r", recipe, "track=[tensorboard]", "--resume", *SHORT)
    assert "is there and current" in done.stderr
