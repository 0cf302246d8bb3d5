"""What watches a training beside its own file: TensorBoard's events, and runs of W&B and MLflow."""

import json
import os
import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import pytest

from autoslim_cli.files.checkpoint import load_state
from autoslim_cli.training.metrics import Metrics
from autoslim_cli.training.trackers import Watched, flat, tracked

with_tensorboard = pytest.mark.skipif(find_spec("tensorboard") is None, reason="TensorBoard is not installed")

SHORT = ("train.epochs=1", "train.batch=15")  # 30 steps


def metrics_of(directory, name="supernet"):
    return [json.loads(line) for line in (directory / f"{name}.metrics.jsonl").read_text().splitlines()]


def events_of(directory):
    """Return the steps and values of a directory's events, by name, as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@with_tensorboard
def test_tensorboard_has_every_number_of_the_metrics(autoslim, recipe):
    autoslim("train-supernet", "-r", recipe, "track=[tensorboard]", *SHORT)
    written = events_of(recipe / "runs" / "supernet")
    rows = metrics_of(recipe)
    losses = [(row["step"], row["loss"]["random 1"]) for row in rows if "loss" in row]
    assert [step for step, _ in written["loss/random 1"]] == [step for step, _ in losses] == [20, 30]
    assert [value for _, value in written["loss/random 1"]] == pytest.approx([value for _, value in losses])
    assert {"rate", "images_per_second", "waiting", "memory", "holdout/loss"} <= set(written)


@with_tensorboard
def test_what_tensorboard_is_told_is_on_the_disk_at_once(tmp_path):
    with tracked(["tensorboard"], Watched(tmp_path, "supernet"), print) as log:
        log({"loss": 0.5}, 20)
        assert events_of(tmp_path / "runs" / "supernet") == {"loss": [(20, 0.5)]}


LONGER = ("train.epochs=2", "train.batch=15")  # 60 steps, of which 20, 30, 50 and 60 are told


def cut_short(autoslim, *command):
    """Stop a training of two epochs after its 50th step; the last state is that of the 30th."""
    add = Metrics.add

    def stopped(self, row):
        add(self, row)
        if row["step"] == 50:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Metrics, "add", stopped)
        autoslim(*command, code=130)


@with_tensorboard
def test_tensorboard_goes_on_in_the_same_run_without_the_steps_that_were_lost(autoslim, recipe):
    command = ("train-supernet", "-r", recipe, "track=[tensorboard]", *LONGER)
    cut_short(autoslim, *command)
    assert [step for step, _ in events_of(recipe / "runs" / "supernet")["rate"]] == [20, 30, 50]
    autoslim(*command, "--resume")
    assert [path.name for path in (recipe / "runs").iterdir()] == ["supernet"]
    written = events_of(recipe / "runs" / "supernet")
    assert [step for step, _ in written["rate"]] == [row["step"] for row in metrics_of(recipe) if "rate" in row]
    assert [step for step, _ in written["rate"]] == [20, 30, 50, 60]
    assert [step for step, _ in written["holdout/loss"]] == [30, 60]


@with_tensorboard
def test_another_training_of_the_same_name_is_another_run_of_tensorboard(autoslim, recipe):
    command = ("train-supernet", "-r", recipe, "track=[tensorboard]")
    autoslim(*command, *SHORT)
    first = events_of(recipe / "runs" / "supernet")
    cut_short(autoslim, *command, *LONGER, "--force")
    autoslim(*command, *LONGER, "--resume")
    assert events_of(recipe / "runs" / "supernet") == first
    assert [step for step, _ in events_of(recipe / "runs" / "supernet-2")["rate"]] == [20, 30, 50, 60]
    assert len(list((recipe / "runs").iterdir())) == 2


@pytest.fixture
def no_settings(monkeypatch):
    """An environment that says nothing to trackers."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_"))]:
        monkeypatch.delenv(name)


@pytest.mark.filterwarnings("ignore")
def test_mlflow_itself_writes_where_nobody_said_and_goes_on(autoslim_json, autoslim, recipe, no_settings, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.chdir(recipe.parent)
    command = ("train-supernet", "-r", recipe, "track=[mlflow]", *LONGER)
    cut_short(autoslim, *command)
    autoslim_json(*command, "--resume")
    assert (recipe.parent / "mlflow.db").exists()
    client = mlflow.MlflowClient()
    (run,) = client.search_runs(["0"])
    assert (run.info.run_name, run.info.status) == ("tiny/supernet", "FINISHED")
    rows = metrics_of(recipe)
    for name in ("rate", "loss/random 1"):
        found = [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, name)]
        wanted = [(row["step"], flat(row)[name]) for row in rows if name in flat(row)]
        assert found == wanted
        assert [step for step, _ in found] == [20, 30, 50, 60]
    assert [one.step for one in client.get_metric_history(run.info.run_id, "holdout/loss")] == [30, 60]
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["made_from.json"]


@pytest.mark.filterwarnings("ignore")
def test_what_mlflow_refuses_says_what_to_set(autoslim, recipe, no_settings, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://at.all")
    said = autoslim("train-supernet", "-r", recipe, "track=[mlflow]", *SHORT, code=2).stderr.splitlines()[-1]
    assert said.startswith("error: track: mlflow cannot begin: ")
    assert "nowhere://at.all" in said
    assert said.endswith(
        "MLFLOW_TRACKING_URI says where, as sqlite:///mlflow.db (which needs the extra mlflow) or the address of a "
        "server; set it, or leave it out of track"
    )


@pytest.mark.filterwarnings("ignore")
def test_wandb_itself_takes_every_row_and_goes_on(autoslim, autoslim_json, recipe, no_settings, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    command = ("train-supernet", "-r", recipe, "track=[wandb]", *LONGER)
    cut_short(autoslim, *command)
    state = load_state(recipe / "supernet.resume.pt")
    autoslim_json(*command, "--resume")
    wandb.teardown()
    files = sorted((recipe / "wandb").glob("offline-run-*/*.wandb"))
    assert [file.name for file in files] == [f"run-{state['runs']['wandb']}.wandb"] * 2
    for file, told in zip(files, ((20, 30, 50), (50, 60)), strict=True):
        assert file.read_bytes().count(b"images_per_second") >= len(told)
        assert b"tiny/supernet" in file.read_bytes()


@pytest.fixture
def stand_ins(monkeypatch):
    """Stand-ins for wandb and mlflow that keep what they are told, as their documented functions take it."""
    told = []

    class Run:
        id = "one"
        info, data = SimpleNamespace(run_id="two"), SimpleNamespace(metrics={})

        def __enter__(self):
            return self

        def __exit__(self, kind, *_):
            print("View run at http://127.0.0.1")  # as MLflow does where there is a server
            told.append(("ended", kind and kind.__name__))

        def log(self, values, step):
            told.append((step, values))

    wandb, mlflow = ModuleType("wandb"), ModuleType("mlflow")
    wandb.init = lambda name, dir, config, id, resume: told.append((name, sorted(config))) or Run()
    mlflow.start_run = lambda run_id, run_name: told.append((run_name,)) or Run()
    mlflow.MlflowClient = lambda: SimpleNamespace(get_metric_history=None)
    mlflow.log_dict = lambda values, _name: told.append(sorted(values))
    mlflow.log_metrics = lambda values, step: told.append((step, values))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    return told


def test_runs_are_begun_told_of_every_row_and_ended(autoslim_json, recipe, stand_ins):
    settings = ("retrain.epochs=1", "retrain.batch=20")
    autoslim_json("retrain", "--width", "0.5", "-r", recipe, "track=[wandb,mlflow]", *settings)
    assert stand_ins[0] == ("tiny/model-width-0.5", ["calibrate", "data", "model", "retrain", "seed", "task"])
    rows = [row["step"] for row in metrics_of(recipe, "model-width-0.5")]
    assert [one[0] for one in stand_ins if isinstance(one[0], int)] == [step for step in rows for _ in range(2)]
    assert stand_ins[-2:] == [("ended", None), ("ended", None)]


def test_a_run_ends_where_a_training_fails(autoslim, recipe, stand_ins):
    done = autoslim("train-supernet", "-r", recipe, "track=[wandb]", "train.lr=1e30", *SHORT, code=1)
    assert "not finite" in done.stderr
    assert stand_ins[-1] == ("ended", "AutoslimError")


def test_a_tracker_that_cannot_begin_is_one_line(autoslim, recipe, stand_ins, monkeypatch):
    def no_server(run_id, run_name):
        raise RuntimeError("no server at all\nTry another")

    monkeypatch.setattr(sys.modules["mlflow"], "start_run", no_server)
    done = autoslim("train-supernet", "-r", recipe, "track=[wandb,mlflow]", *SHORT, code=2)
    assert done.stderr.splitlines()[-1].startswith("error: track: mlflow cannot begin: no server at all; MLFLOW_")
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
    assert "pip install '.[wandb]'" in done.stderr


def test_what_watches_a_training_makes_no_other_result(autoslim, recipe):
    autoslim("train-supernet", "-r", recipe, *SHORT)
    done = autoslim("train-supernet", "-r", recipe, "track=[tensorboard]", "--resume", *SHORT)
    assert "is there and current" in done.stderr
