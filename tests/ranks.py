"""Run commands in several processes that share their work as those of a torchrun job do, without its seconds of starts.

Run as a script it loads PyTorch once, and forks every process of every job. The store by which the processes meet is
the script's, as it is torchrun's own elsewhere.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

PATIENCE = 60
"""Seconds after which a job hangs; its processes are killed then."""

Job = Sequence[Sequence[str | Path]]
"""The arguments of `autoslim` in each process."""


class Done(NamedTuple):
    """What became of a process."""

    code: int
    stdout: str
    stderr: str


def together(*jobs: Job) -> list[list[Done]]:
    """Run jobs one after another; return what became of each process of each."""
    asked = json.dumps([[[str(word) for word in words] for words in job] for job in jobs])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # as torchrun sets it
    done = subprocess.run(
        [sys.executable, __file__], input=asked, check=False, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return [[Done(*process) for process in job] for job in json.loads(done.stdout)]


def shared(count: int, *words: str | Path) -> Job:
    """Return a job of so many processes, all of which get the same arguments."""
    return [words] * count


def errors(job: Sequence[Done]) -> list[str]:
    """Return why the processes of a job say that it failed."""
    return [line for done in job for line in done.stderr.splitlines() if line.startswith("error: ")]


def _run(job: Job, directory: Path) -> list[Done]:
    """Run a job; what its processes print goes through files."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    place |= {"WORLD_SIZE": str(len(job)), "LOCAL_WORLD_SIZE": str(len(job))}
    place |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    running, codes = {}, dict[int, int]()
    for rank, words in enumerate(job):
        os.environ.update(place, RANK=str(rank), LOCAL_RANK=str(rank))
        if not (pid := os.fork()):
            _be(words, directory / f"{rank}.out", directory / f"{rank}.err")
        running[pid] = rank
    deadline = time.monotonic() + PATIENCE
    while running:
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                codes[running.pop(pid)] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                os.kill(pid, 9)
        time.sleep(0.01)
    files = [[(directory / f"{rank}.{kind}").read_text() for kind in ("out", "err")] for rank in range(len(job))]
    return [Done(codes[rank], *texts) for rank, texts in enumerate(files)]


def _be(words: Sequence[str | Path], out: Path, err: Path) -> None:
    """Be one process of a job: never returns."""
    from autoslim_cli.cli.app import app

    code = 1
    try:
        for descriptor, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        app(list(words), prog_name="autoslim")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _main() -> None:
    """Read jobs, and print what became of them."""
    for module in ("torch._dynamo", "autoslim_cli.stages.run", "autoslim_cli.models.built_in"):  # what all would load
        importlib.import_module(module)
    with tempfile.TemporaryDirectory() as directory:
        done = [_run(job, Path(directory)) for job in json.load(sys.stdin)]
    print(json.dumps(done))


if __name__ == "__main__":
    _main()
