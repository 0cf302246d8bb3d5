"""Processes do what one does, however they start; those that would not do the same work say what differs."""

import json
import shutil

import numpy as np
import pytest
import torch
from artifacts import assert_close, rewritten
from PIL import Image
from ranks import errors, shared, together

from autoslim_cli.training.state import State

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _one_thread():
    """Compute with one thread, as the processes of a job do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def draw(directory, count, first=0):
    """Write images of ten classes: noise."""
    for number in range(first, first + count):
        path = directory / str(number % 10) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)).save(path)


def test_processes_that_see_other_things_say_what_differs(worked, tmp_path):
    """Two machines have a directory each; what differs ends the job at once, in one line that names it."""
    other = shutil.copytree(worked, tmp_path / "other" / "tiny")
    for here, count, first in ((worked, 60, 0), (other, 50, 1)):
        draw(here / "fewer" / "train", count)
        draw(here / "others" / "train", 60, first)
    for name in ("supernet.safetensors", "model-60pct.safetensors"):
        rewritten(other / name, lambda facts: facts["made_from"]["versions"].update(torch="another"))

    def in_each(*words, own=((), ())):
        """Return the job of two machines that are told the same, but for some words of their `own`."""
        places = [[word.format(here=here) for word in words] for here in (worked, other)]
        return [[*place, *more] for place, more in zip(places, own, strict=True)]

    def in_one(*own):
        return [[*words, "-r", worked] for words in own]

    train, folder = ("train-supernet", "-r", "{here}", "--force"), ("data.name=image-folder", "data.holdout=10")
    jobs = {
        # Images, recipes, files: what the result depends on.
        "(supernet): images is sha256:": in_each(*train, *folder, "data.path=fewer", "data.limit=null"),
        "(supernet): images is sha256: ": in_each(*train, *folder, "data.path=others"),
        "recipes: evaluate.batch is 200 in process 0, 7 in process 1; start all": in_each(
            "evaluate", "{here}/model-60pct.safetensors", own=(["evaluate.batch=200"], ["evaluate.batch=7"])
        ),
        "things to measure: file is sha256:": in_each("evaluate", "{here}/model-60pct.safetensors"),
        "options: supernet.safetensors is sha256:": in_each("calibrate-bn", "--widths", "0.5", "-r", "{here}"),
        "search: supernet is sha256:": in_each("search", "--flops", "50%", "-r", "{here}"),
        "(model-width-0.5-from-supernet): supernet.safetensors is sha256:": in_each(
            "retrain", "--width", "0.5", "--from", "supernet", "-r", "{here}"
        ),
        "made by training: supernet.safetensors.made_from.versions.torch is": in_each(
            "train-supernet", "-r", "{here}", "--resume"
        ),
        # Commands: one process would be done, or train, while another waits.
        "process 0 is at the end of the command, process 1 at rows of a log": in_one(
            ["train-supernet", "--resume"], ["run", "--flops", "60%"]
        ),
        "process 0 is at files made by training, process 1 at the stopped training that is given up": in_one(
            ["train-supernet", "--resume"], ["train-supernet", "--force"]
        ),
        "options: channels.width-1 is": in_one(
            ["calibrate-bn", "--widths", "0.5,1"], ["calibrate-bn", "--widths", "0.5"]
        ),
    }
    before = {path.name: path.read_bytes() for path in worked.iterdir() if path.is_file()}
    for words, job in zip(jobs, together(*jobs.values()), strict=True):
        said = errors(job)
        assert [done.code for done in job] == [1, 1], (words, job)
        assert len(said) == 1, (words, job)
        assert words.strip() in said[0]
        assert "the recipe's directory on a disk that they share" in said[0]
    assert {path.name: path.read_bytes() for path in worked.iterdir() if path.is_file()} == before


def stopped(autoslim, monkeypatch, step, *arguments):
    """Run a command that is stopped as soon as it has saved the state after a step."""
    save = State.save

    def save_and_stop(state, job, done):
        save(state, job, done)
        if done == step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(State, "save", save_and_stop)
        autoslim(*arguments, "train.save_minutes=0.000001", code=130)


def test_two_processes_go_on_where_one_stopped(without_norms, tmp_path, autoslim, monkeypatch):
    """They end in the weights of one process that was never stopped, sums differing by their order alone."""
    alone, other = (shutil.copytree(without_norms, tmp_path / name / "tiny") for name in ("alone", "other"))
    settings = ("train.epochs=2", "train.lr=0.05", "train.ema=0.9", "data.augment.mixup=0.2")
    autoslim("train-supernet", "-r", alone, *settings)
    stopped(autoslim, monkeypatch, 4, "train-supernet", "-r", without_norms, *settings)  # of 14 steps in two epochs
    stopped(autoslim, monkeypatch, 3, "train-supernet", "-r", other, *settings)
    command = ("train-supernet", "--resume", *settings, "-r")
    torn, whole = together([[*command, without_norms], [*command, other]], shared(2, *command, without_norms))
    assert [done.code for done in torn] == [1, 1]
    (line,) = errors(torn)
    assert "states of a stopped training (supernet): steps done is 4 in process 0, 3 in process 1" in line
    assert [done.code for done in whole] == [0, 0], whole
    assert "resuming after step 4" in whole[0].stderr
    supernet = without_norms / "supernet.safetensors"
    assert_close(supernet, alone / "supernet.safetensors", rtol=1e-3, atol=1e-5)


def epochs(directory, name):
    """Return the holdout's loss after each epoch of a training."""
    rows = map(json.loads, (directory / f"{name}.metrics.jsonl").read_text().splitlines())
    return {row["epoch"]: row["holdout"]["loss"] for row in rows if "holdout" in row}


def test_two_processes_train_on_files_that_workers_decode(recipe, tmp_path, autoslim):
    """With BN they are one process of two micro-batches, whatever else a training does, and stop after its epoch.

    The images are noise: the more is learned of them, the worse is what the holdout says.
    """
    for part, count in (("train", 200), ("test", 50)):
        draw(recipe / "noise" / part, count, first=1000 * len(part))
    shutil.copytree(recipe, recipe / "switches")
    alone = shutil.copytree(recipe, tmp_path / "alone")
    settings = ["data.name=image-folder", "data.path=noise", "data.memory=0", "data.workers=1", "data.limit=null"]
    settings += ["data.holdout=50", "data.augment.mixup=0.2", "calibrate.images=64", "calibrate.batch=32"]
    for section in ("train", "retrain"):
        settings += [f"{section}.{words}" for words in ("batch=32", "ema=0.5", "clip=0.5", "patience=1", "lr=0.1")]
    settings += ["train.epochs=2", "retrain.epochs=5"]
    switches = ("supernet.bn=switchable", "supernet.widths=[0.5,1.0]")
    stages = [
        ("", "supernet", ["train-supernet", *settings]),
        ("", "model-width-1", ["retrain", "--width", "1", *settings]),
        ("switches", "supernet", ["train-supernet", *settings, *switches]),
    ]
    jobs = [shared(2, *words, "-r", recipe / place, "--json") for place, _, words in stages]
    for (place, name, words), job in zip(stages, together(*jobs), strict=True):
        assert [process.code for process in job] == [0, 0], job
        autoslim(*words, "-r", alone / place, "train.micro_batch=16", "retrain.micro_batch=16")
        own = ("running_mean", "running_var") if place else ()  # updated once a step, not once a micro-batch
        files = (directory / place / f"{name}.safetensors" for directory in (recipe, alone))
        assert_close(*files, but=own, rtol=1e-2, atol=1e-3)
        if not own:
            assert epochs(recipe, name) == pytest.approx(epochs(alone, name), rel=1e-3)
    assert list(epochs(recipe, "model-width-1")) == [1, 2]  # of five


SIGNALLED = """
import os
import signal

from torch.nn import functional as F

from autoslim_cli import Metric, Task


def signalled():
    def statistics(outputs, labels):
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)
        return (outputs.argmax(1) != labels).sum()

    metric = Metric(name="wrong", unit="", higher_is_better=False)
    return Task("signalled", metric, F.cross_entropy, statistics, lambda sums, images: sums[0] / images)
"""


def test_a_job_that_is_told_to_end_in_its_last_look_at_the_holdout_ends_there(recipe):
    """It went on to the test images, and in `run` to the next training."""
    (recipe / "task.py").write_text(SIGNALLED)
    settings = ("task.name=./task.py:signalled", "train.epochs=1", "evaluate.batch=10")
    (done,) = together(shared(2, "train-supernet", "-r", recipe, *settings))
    assert [process.code for process in done] == [130, 130], done
    assert "stopped after step 7 of 7" in done[0].stderr
    assert (recipe / "supernet.resume.pt").exists()
    assert not (recipe / "supernet.safetensors").exists()
