"""Two commands at once, and streams and directories that are gone."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from autoslim_cli.errors import UsageError
from autoslim_cli.files.atomic import write_text
from autoslim_cli.files.lock import locked

pytestmark = pytest.mark.slow

HOLD = "import sys, time\nfrom pathlib import Path\nfrom autoslim_cli.files.lock import locked\n"
HOLD += "with locked(Path(sys.argv[1])):\n    print('mine', flush=True)\n    time.sleep(60)\n"

FORKS = """
import os, sys, time
from pathlib import Path
from autoslim_cli.files.lock import locked

with locked(Path(sys.argv[1])):
    if not os.fork():
        print(os.getpid(), flush=True)  # by the worker: once it runs, the lock is its parent's alone
    time.sleep(60)
"""
CONTEND = """
import sys, time
from pathlib import Path
from autoslim_cli.errors import UsageError
from autoslim_cli.files.lock import locked

mine, got, end = Path(sys.argv[1]), 0, time.monotonic() + 1.5
while time.monotonic() < end:
    try:
        with locked(mine):
            (mine.parent / "in").mkdir()  # fails if another is in
            (mine.parent / "in").rmdir()
            got += 1
    except UsageError:
        pass
print(got)
"""


def holding(path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "mine\n"
    return process


def test_a_file_is_made_by_one_command_at_a_time(recipe, refuse, autoslim):
    other = holding(recipe / "supernet.safetensors")
    said = refuse(2, "train-supernet", "-r", recipe)
    assert f"process {other.pid} on {socket.gethostname()} is making it" in said
    assert "retrain" not in said
    autoslim("units", "-r", recipe)  # what only reads needs no lock
    # A process that was killed leaves its file behind, and not its lock.
    other.kill()
    other.communicate()
    assert (recipe / ".supernet.safetensors.lock").exists()
    autoslim("train-supernet", "-r", recipe, "train.epochs=1")
    assert not list(recipe.glob(".*.lock"))


def test_workers_do_not_outlive_a_lock(tmp_path):
    """Processes that load images are forked, and notice only after seconds that the command was killed."""
    process = subprocess.Popen([sys.executable, "-c", FORKS, str(tmp_path / "one")], stdout=subprocess.PIPE, text=True)
    worker = int(process.stdout.readline())
    try:
        with pytest.raises(UsageError, match=f"process {process.pid} on"), locked(tmp_path / "one"):
            pass
        process.kill()
        process.wait()
        os.kill(worker, 0)  # it is still there
        with locked(tmp_path / "one"):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        process.stdout.close()


WRITES = """
import os, sys, time
from pathlib import Path
from autoslim_cli.files import atomic

def slow(_):
    print("writing", flush=True)
    sys.stdin.readline()

os.fsync = slow
atomic.write_text(Path(sys.argv[1]), "theirs")
"""


def writing(path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", WRITES, str(path)], **pipes, text=True)
    assert process.stdout.readline() == "writing\n"
    return process


def test_what_a_killed_write_leaves_goes_with_the_next(tmp_path):
    path, other = tmp_path / "one", tmp_path / "two"
    killed = writing(path)
    killed.kill()
    killed.communicate()
    write_text(other, "another file")
    assert len(list(tmp_path.glob(".one.*.part"))) == 1
    write_text(path, "mine")
    assert sorted(tmp_path.iterdir()) == [path, other]
    # What another command still writes stays its own.
    at_work = writing(path)
    (part,) = tmp_path.glob(".one.*.part")
    write_text(path, "mine again")
    assert part.exists()
    assert path.read_text() == "mine again"
    at_work.communicate("go on\n")
    assert at_work.returncode == 0
    assert path.read_text() == "theirs"
    assert sorted(tmp_path.iterdir()) == [path, other]


def test_searches_and_trainings_are_locked_one_by_one(worked, refuse, autoslim):
    other = holding(worked / "search.jsonl")
    assert "is making it" in refuse(2, "search", "--flops", "60%", "-r", worked)
    autoslim("retrain", worked / "arch-30pct.json", "retrain.epochs=1")
    other.send_signal(signal.SIGKILL)
    other.communicate()
    autoslim("search", "--flops", "60%", "-r", worked, "search.strategy=uniform")


def test_one_joint_training_at_a_time(worked, refuse, autoslim):
    """Trainings of other networks have one state and one file of metrics between them."""
    other = holding(worked / "joint.resume.pt")
    command = ("retrain", worked / "arch-30pct.json", worked / "arch-60pct.json", "--joint", "retrain.epochs=1")
    assert f"joint.resume.pt: process {other.pid} on {socket.gethostname()} is making it" in refuse(2, *command)
    assert not (worked / "model-30pct-joint.safetensors").exists()
    autoslim("retrain", worked / "arch-30pct.json", "retrain.epochs=1")  # alone it has a state of its own
    other.kill()
    other.communicate()
    autoslim(*command)
    assert not list(worked.glob(".*.lock"))


def test_a_lock_of_another_host_is_not_taken_over(tmp_path):
    lock = tmp_path / ".one.lock"
    lock.write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    with (
        pytest.raises(UsageError, match=r"process 1 on elsewhere .* remove .*\.one\.lock if it has ended"),
        locked(tmp_path / "one"),
    ):
        pass
    assert lock.exists()
    lock.write_text("[" * 100_000)  # what no autoslim wrote
    with locked(tmp_path / "one"):
        assert json.loads(lock.read_text()) == {"pid": os.getpid(), "host": socket.gethostname()}
    assert not lock.exists()


def test_a_lock_is_handed_on_under_contention(tmp_path):
    """Of many that take and release it without pause no two are in at once."""
    command = [sys.executable, "-c", CONTEND, str(tmp_path / "one")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ended = [(process.communicate(timeout=60), process.returncode) for process in both]
    assert all(code == 0 for _, code in ended), ended
    assert sum(int(out) for (out, _), _ in ended) > 0


def shell(command, **options):
    text = command.replace("autoslim", f"{sys.executable} -m autoslim_cli")
    return subprocess.run(["bash", "-c", text], check=False, capture_output=True, text=True, timeout=120, **options)


@pytest.mark.parametrize(
    "command",
    ["recipes list", "recipes schema", "recipes show digits", "search --help", "--help", "units -r digits --json"],
)
@pytest.mark.parametrize("reader", ["true", "head -1"])
def test_a_reader_that_goes_away_has_what_it_wanted(command, reader, tmp_path):
    done = shell(f"autoslim {command} | {reader}; exit ${{PIPESTATUS[0]}}", cwd=tmp_path)
    assert done.returncode == 0
    assert "error" not in done.stderr
    assert "Traceback" not in done.stderr


def test_errors_keep_their_exit_code_where_nobody_reads_them():
    assert shell("autoslim recipes show none 2>&1 | true; exit ${PIPESTATUS[0]}").returncode == 2


def test_a_training_goes_on_when_nobody_reads_how(recipe):
    """Its first line is read, and then nothing any more."""
    done = shell(f"autoslim train-supernet -r {recipe} train.epochs=2 2>&1 | head -1; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 0
    assert (recipe / "supernet.safetensors").exists()


def test_closed_streams(tmp_path):
    done = shell("autoslim recipes list -q >&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = shell("autoslim recipes show none 2>&-")  # errors do not go to stdout instead
    assert (done.returncode, done.stdout) == (2, "")
    done = shell("autoslim units -r digits --json >&- 2>&- <&-", cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "recipes/digits/recipe.yaml").read_text().startswith("#")  # nothing was printed into a file


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full device here")  # noqa: PTH110
def test_a_full_disk_is_one_line():
    done = shell("autoslim recipes list > /dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no space left")
    assert done.stderr.count("\n") == 1
    done = shell("autoslim recipes show digits > /dev/full")  # by print, which a buffer takes first
    assert done.returncode == 1
    assert done.stderr.startswith("error: no space left")
    assert done.stderr.count("\n") == 1


def test_a_directory_that_was_removed(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    done = shell(f"cd {gone} && rmdir {gone} && autoslim units -r digits")
    assert done.returncode == 2
    assert done.stderr == "error: the current directory was removed: change to one that is there\n"


def test_a_directory_that_is_removed_meanwhile(recipe):
    """A training whose relative directory goes fails in one line at its next save."""
    code = "import pathlib, shutil, sys\nfrom autoslim_cli.training import state\nbefore = state.save_state\n"
    code += "def save(*given, **more):\n    shutil.rmtree(pathlib.Path.cwd())\n    before(*given, **more)\n"
    code += "state.save_state = save\nfrom autoslim_cli.__main__ import main\nmain()\n"
    done = subprocess.run(
        [sys.executable, "-c", code, "train-supernet", "train.epochs=1"],
        check=False, capture_output=True, text=True, cwd=recipe,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.endswith("error: the current directory was removed: change to one that is there\n")
    assert "Traceback" not in done.stderr


def test_no_home(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    done = shell("autoslim units -r digits --json", cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["units"]
