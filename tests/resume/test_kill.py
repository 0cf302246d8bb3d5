"""kill -9 in each stage, then --resume: the same final files as a straight run, byte for byte."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoslim_cli.files import checkpoint

pytestmark = pytest.mark.slow


def start(*arguments):
    command = [sys.executable, "-m", "autoslim_cli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill_when(running, there):
    """Kill the process once `there()` holds; it must still be at work then."""
    deadline = time.monotonic() + 90
    while not there():
        assert running.poll() is None, running.stdout.read()
        assert time.monotonic() < deadline, "the moment to kill never came"
        time.sleep(0.002)
    running.kill()
    running.communicate()
    assert running.returncode == -9


@pytest.fixture
def straight(worked, tmp_path_factory):
    """The worked recipe, from straight runs, and a copy to kill commands in."""
    return worked, tmp_path_factory.mktemp("killed") / "tiny"


def test_train_supernet(straight, autoslim):
    worked, killed = straight
    killed.mkdir()
    shutil.copy(worked / "recipe.yaml", killed)
    command = ("train-supernet", "-r", killed, "train.save_minutes=0.00001")
    autoslim("train-supernet", "-r", worked, "train.save_minutes=0.00001", "--force")
    # 1. Kill it within the first epoch, resume, and kill it again.
    state = killed / "supernet.resume.pt"
    kill_when(start(*command), state.exists)
    first = state.stat().st_mtime_ns
    running = start(*command, "--resume")
    kill_when(running, lambda: state.stat().st_mtime_ns != first)
    # 2. The third start ends it.
    said = autoslim(*command, "--resume").stderr
    assert "resuming after step" in said
    assert (killed / "supernet.safetensors").read_bytes() == (worked / "supernet.safetensors").read_bytes()
    assert not state.exists()


@pytest.mark.parametrize("settings", [(), ("supernet.draw_per_process=true",)], ids=["same draws", "own draws"])
def test_two_processes(straight, settings):
    """The whole job of torchrun and its processes goes at once, twice; bytes are those of a job that nobody killed."""
    worked, killed = straight
    killed.mkdir()
    shutil.copy(worked / "recipe.yaml", killed)
    job = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "autoslim_cli"]
    job += ["train-supernet", "train.save_minutes=0.00001", "train.lr=0.05", "train.epochs=6", *settings]
    subprocess.run([*job, "-r", str(worked), "--force"], check=True, capture_output=True)
    state, seen, resume = killed / "supernet.resume.pt", 0, []
    for _ in range(2):
        running = subprocess.Popen(
            [*job, "-r", str(killed), *resume],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        deadline = time.monotonic() + 90
        while not state.exists() or state.stat().st_mtime_ns == seen:
            assert running.poll() is None, running.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        for process in processes(killed):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        running.communicate()
        seen, resume = state.stat().st_mtime_ns, ["--resume"]
    done = subprocess.run([*job, "-r", str(killed), *resume], check=True, capture_output=True, text=True)
    assert "resuming after step" in done.stderr
    assert (killed / "supernet.safetensors").read_bytes() == (worked / "supernet.safetensors").read_bytes()


def processes(directory):
    """Return the processes that were started for a directory: torchrun, and those of its job."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(directory).encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


COSINE = ("retrain.schedule=cosine", "retrain.warmup=0.2")


@pytest.mark.parametrize("settings", [(), COSINE, (*COSINE, "--joint")], ids=["step", "cosine", "joint"])
def test_retrain(straight, autoslim, settings):
    worked, killed = straight
    killed.mkdir()
    names = ["arch-60pct.json", "arch-30pct.json"] if "--joint" in settings else ["arch-60pct.json"]
    for name in ("recipe.yaml", *names):
        shutil.copy(worked / name, killed)
    settings = (*settings, "retrain.save_minutes=0.00001")
    autoslim("retrain", *(worked / name for name in names), *settings)
    command = ("retrain", *(killed / name for name in names), *settings)
    state = killed / ("joint.resume.pt" if "--joint" in settings else "model-60pct.resume.pt")
    kill_when(start(*command), state.exists)
    assert "resuming after step" in autoslim(*command, "--resume").stderr
    for name in names:
        own = "-joint" if "--joint" in settings else ""
        model = name.replace("arch-", "model-").replace(".json", f"{own}.safetensors")
        assert (killed / model).read_bytes() == (worked / model).read_bytes()
    assert not state.exists()


def test_joint_between_its_files(straight, autoslim, monkeypatch):
    """The first of two networks is written, the second is not: what is there stays as it is, under its own name."""
    worked, killed = straight
    killed.mkdir()
    names = ["arch-60pct.json", "arch-30pct.json"]
    for name in ("recipe.yaml", *names):
        shutil.copy(worked / name, killed)
    autoslim("retrain", *(worked / name for name in names), "--joint")
    save, saved = checkpoint.save, []

    def save_one(path, *rest):
        if saved:
            raise KeyboardInterrupt
        save(path, *rest)
        saved.append(path)

    command = ("retrain", *(killed / name for name in names), "--joint")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_one)
        autoslim(*command, code=130)
    (first,) = killed.glob("*.safetensors")
    written = first.stat().st_mtime_ns
    autoslim(*command, "--resume")
    assert first.stat().st_mtime_ns == written
    models = sorted(path.name for path in killed.glob("*.safetensors"))
    assert models == ["model-30pct-joint.safetensors", "model-60pct-joint.safetensors"]
    assert all((killed / name).read_bytes() == (worked / name).read_bytes() for name in models)


SEARCHES = [
    ["search.strategy=exact", "search.pace=0.01"],
    ["search.refresh=4", "search.draw=anew", "search.images=75", "search.fill=0.98", "search.refine=2"],
    ["search.strategy=random", "search.draws=9"],
]


@pytest.mark.parametrize("settings", SEARCHES[:1])
def test_search(straight, autoslim, settings):
    worked, killed = straight
    autoslim("search", "--flops", "60%,30%", "-r", worked, *settings)
    shutil.copytree(worked, killed)
    for name in ("search.jsonl", "arch-60pct.json", "arch-30pct.json"):
        (killed / name).unlink()
    log = killed / "search.jsonl"
    command = ("search", "--flops", "60%,30%", "-r", killed, *settings)
    kill_when(start(*command), lambda: log.exists() and log.read_bytes().count(b"\n") > 3)
    with log.open("a") as file:  # a line that the kill cut short
        file.write('{"step": 9')
    autoslim(*command, "--resume")
    for name in ("arch-60pct.json", "arch-30pct.json"):
        assert (killed / name).read_bytes() == (worked / name).read_bytes()
    assert decided(log) == decided(worked / "search.jsonl")


@pytest.mark.parametrize("settings", SEARCHES)
def test_search_from_any_line(worked, autoslim, settings):
    """What a kill at any moment leaves is a prefix of the log, torn or not: from each the search ends the same."""
    command = ("search", "--flops", "60%,30%", "-r", worked, *settings)
    autoslim(*command)
    log = worked / "search.jsonl"
    whole, expected = log.read_text(), decided(log)
    configs = {path: path.read_bytes() for path in worked.glob("arch-*pct.json")}
    assert len(configs) == 2
    lines = whole.splitlines(keepends=True)
    for count in range(1, len(lines), max(1, len(lines) // 5)):
        torn = lines[count][: len(lines[count]) // 2] if count % 2 else ""
        log.write_text("".join(lines[:count]) + torn)
        for path in configs:
            path.unlink()
        autoslim(*command, "--resume")
        assert {path: path.read_bytes() for path in worked.glob("arch-*pct.json")} == configs
        assert decided(log) == expected


def decided(log):
    rows = [json.loads(line) for line in log.read_text().splitlines()[1:]]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_calibrate_bn(straight, autoslim):
    worked, killed = straight
    shutil.copytree(worked, killed)
    widths = "0.25:1.5:0.05"
    autoslim("calibrate-bn", "--widths", widths, "-r", worked)
    kill_when(
        start("calibrate-bn", "--widths", widths, "-r", killed),
        lambda: len(list(killed.glob("subnet-*.safetensors"))) > 3,
    )
    kept = {path: path.stat().st_mtime_ns for path in killed.glob("subnet-*.safetensors")}
    autoslim("calibrate-bn", "--widths", widths, "-r", killed, "--resume")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    made = sorted(path.name for path in worked.glob("subnet-*.safetensors"))
    assert len(made) == 26
    for name in made:
        assert (killed / name).read_bytes() == (worked / name).read_bytes()
