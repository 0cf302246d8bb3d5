"""Processes do what one does, however they start; those that would not do the same work say what differs."""

import shutil

import numpy as np
import pytest
import torch
from artifacts import rewritten
from PIL import Image
from ranks import errors, together

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _one_thread():
    """Compute with one thread, as the processes of a job do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def draw(directory, count, first=0):
    """Write images of ten classes, which differ by their brightness."""
    for number in range(first, first + count):
        path = directory / str(number % 10) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 100, (8, 8)) + number % 10 * 15
        Image.fromarray(pixels.astype(np.uint8)).save(path)


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
        "process 0 is at files made by training, process 1 at free memory": in_one(
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
