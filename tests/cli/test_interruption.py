"""Ctrl-C, SIGTERM and a lost terminal end every long command alike: what was done is kept, one line, exit code 130."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from autoslim_cli.cli import app as commands
from autoslim_cli.errors import ArtifactError
from autoslim_cli.training.state import State

pytestmark = pytest.mark.slow

WAIT = 120

ASLEEP = """
import sys, time
import autoslim_cli.stages.{stage} as stage

def asleep(*given, **more):
    print("at work", file=sys.stderr, flush=True)
    time.sleep({seconds})
    raise SystemExit(0)

stage.{stage} = asleep
from autoslim_cli.__main__ import main
main()
"""


def start(arguments, hangup=signal.SIG_DFL, code=None):
    """Start a command, with SIGHUP as a shell leaves it, or as nohup does."""
    program = ["-c", code] if code else ["-m", "autoslim_cli"]
    return subprocess.Popen(
        [sys.executable, *program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, hangup),  # noqa: PLW1509 - as a shell leaves it
    )


def wait_for(running, there):
    """Wait until `there()` holds; the process must still be at work then."""
    deadline = time.monotonic() + WAIT
    while not there():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.005)


def interrupted(running, number):
    """Send a signal; return what the command said."""
    running.send_signal(number)
    out, said = running.communicate(timeout=WAIT)
    assert running.returncode == 130, said
    assert out == ""
    assert said.endswith("error: interrupted\n")
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_search_keeps_its_scores(worked, autoslim, number):
    settings = ("search", "--flops", "40%", "-r", worked, "search.strategy=exact", "search.pace=0.01")
    log = worked / "search.jsonl"
    log.unlink()
    running = start(settings)
    wait_for(running, lambda: log.exists() and log.read_bytes().count(b"\n") > 3)
    said = interrupted(running, number)
    assert f"stopped: {log} holds every score so far; the same command with --resume continues\n" in said
    assert not list(worked.glob(".*"))  # no lock, no part of a file
    assert "the log holds" in autoslim(*settings, "--resume").stderr


def test_a_calibration_keeps_what_it_cut(worked):
    running = start(("calibrate-bn", "--widths", "0.25:1.5:0.01", "-r", worked))
    wait_for(running, lambda: list(worked.glob("subnet-*.safetensors")))
    said = interrupted(running, signal.SIGHUP)
    assert f"stopped: what was calibrated lies in {worked}; the same command with --resume continues\n" in said
    assert list(worked.glob("subnet-*.safetensors"))


def test_a_profile_keeps_its_times(worked):
    running = start(("profile", "-r", worked))
    wait_for(running, lambda: list(worked.glob("latency-*.json")))
    (table,) = worked.glob("latency-*.json")
    said = interrupted(running, signal.SIGTERM)
    assert f"stopped: {table} holds what was measured; the same command with --resume continues\n" in said


def test_a_run_keeps_the_training_under_way(worked):
    running = start(("run", "--flops", "60%", "-r", worked, "retrain.epochs=500"))
    wait_for(running, (worked / "model-60pct.resume.pt").exists)
    assert "--resume continues" in interrupted(running, signal.SIGHUP)
    assert (worked / "model-60pct.resume.pt").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("stage", ["compare", "evaluate"])
def test_what_keeps_nothing_ends_in_one_line(worked, stage, number):
    running = start((stage, worked / "model-60pct.safetensors"), code=ASLEEP.format(stage=stage, seconds=WAIT))
    assert running.stderr.readline() == "at work\n"
    assert interrupted(running, number) == "error: interrupted\n"


def test_nohup_is_respected(worked):
    code = ASLEEP.format(stage="compare", seconds=2)
    running = start(("compare", worked / "model-60pct.safetensors"), signal.SIG_IGN, code)
    assert running.stderr.readline() == "at work\n"
    running.send_signal(signal.SIGHUP)
    assert running.communicate(timeout=WAIT) == ("", "")
    assert running.returncode == 0


@pytest.mark.parametrize("times", [1, 2])
def test_a_second_signal_ends_a_training_at_once(recipe, autoslim, monkeypatch, times):
    """The first is answered once the step has ended and was saved."""
    step = State.step

    def signalled(*given, **more):
        for _ in range(times):
            signal.raise_signal(signal.SIGTERM)
        return step(*given, **more)

    monkeypatch.setattr(State, "step", signalled)
    assert autoslim("train-supernet", "-r", recipe, code=130).stderr.endswith("error: interrupted\n")
    assert (recipe / "supernet.resume.pt").exists() == (times == 1)


def test_a_training_whose_terminal_is_lost_saves(recipe):
    """The terminal of an ssh session that breaks: SIGHUP comes, and nothing can be printed any more."""
    state, looks = recipe / "supernet.resume.pt", recipe / "supernet.metrics.jsonl"
    # In steps of one image an epoch, at whose end the state is saved anyway, takes many seconds.
    arguments = ["train-supernet", "-r", str(recipe), "train.batch=1", "train.save_minutes=60"]
    process, terminal = pty.fork()
    if process == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.execv(sys.executable, [sys.executable, "-m", "autoslim_cli", *arguments])
    deadline = time.monotonic() + WAIT
    os.set_blocking(terminal, False)
    while not (looks.exists() and looks.read_text()):
        assert time.monotonic() < deadline
        try:
            os.read(terminal, 65536)
        except BlockingIOError:
            time.sleep(0.01)
    assert not state.exists()
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert state.exists()
    assert not list(recipe.glob(".*"))


DECODED = ("data.name=image-folder", "data.path=images", "data.memory=0", "data.workers=1", "data.holdout=8")


@pytest.fixture
def decoding(recipe):
    """A training whose images are decoded by a process of their own, and which takes minutes; and its metrics."""
    for part in ("train", "test"):
        for label in ("one", "two"):
            (recipe / "images" / part / label).mkdir(parents=True)
            for number in range(40):
                Image.new("L", (8, 8), 6 * number).save(recipe / "images" / part / label / f"{number}.png")
    settings = ("data.limit=null", "model.classes=2", "train.epochs=1000", "train.batch=2", "train.save_minutes=60")
    return ["train-supernet", "-r", str(recipe), *DECODED, *settings], recipe / "supernet.metrics.jsonl"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_all_processes_are_told_to_end(decoding, number):
    """Ctrl-C, scancel and torchrun tell every process, also those that load images: these end after the last save."""
    arguments, looks = decoding
    command = [sys.executable, "-m", "autoslim_cli", *arguments]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(running, lambda: looks.exists() and looks.read_text())
    (worker,) = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    os.killpg(running.pid, number)
    said = running.communicate(timeout=WAIT)[1]
    assert running.returncode == 130, said
    assert "stopped after step" in said
    assert "Traceback" not in said
    assert looks.with_name("supernet.resume.pt").exists()
    assert not Path(f"/proc/{worker}").exists()


def test_a_process_that_loads_images_and_is_killed_ends_the_command_in_one_line(decoding):
    arguments, looks = decoding
    running = subprocess.Popen([sys.executable, "-m", "autoslim_cli", *arguments], stderr=subprocess.PIPE, text=True)
    wait_for(running, lambda: looks.exists() and looks.read_text())
    (worker,) = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    said = running.communicate(timeout=WAIT)[1]
    assert running.returncode == 1, said
    assert "lower data.workers" in said.splitlines()[-1]
    assert "Traceback" not in said


def test_a_job_is_told_to_end(decoding):
    """torchrun hands SIGTERM on to all processes of its processes."""
    arguments, looks = decoding
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "autoslim_cli",
    ]
    running = subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE, text=True)
    wait_for(running, lambda: looks.exists() and looks.read_text())
    running.terminate()
    said = running.communicate(timeout=WAIT)[1]
    assert said.count("stopped after step") == 1, said
    assert said.count("error: interrupted") == 1
    assert "DataLoader" not in said
    assert looks.with_name("supernet.resume.pt").exists()


def failing():
    try:
        raise ArtifactError("another process has gone")
    finally:
        os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_does_not_hide_the_failure_that_it_comes_upon(capsys):
    """A process that finds that another has died is ended by torchrun, at times before it could say so."""
    with pytest.raises(SystemExit) as ended, commands._one_line():
        failing()
    assert ended.value.code == 4
    assert capsys.readouterr().err == "error: another process has gone\n"
