"""Commands as processes: as a person starts them, and as forks that can be killed at a moment."""

import contextlib
import importlib
import os
import pkgutil
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import IO, NoReturn

ROOT = Path(__file__).parents[2]


def tree(process: int) -> list[int]:
    """Return a process and all that it started, as far as they are there."""
    found = [process]
    for one in found:
        with contextlib.suppress(OSError):
            for path in Path(f"/proc/{one}/task").glob("*/children"):
                found += map(int, path.read_text().split())
    return found


def cpu_of(processes: Iterable[int]) -> float:
    """Return the seconds of CPU time that processes took, with those that they waited for."""
    ticks = 0
    for process in processes:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def started(place: Path, command: list[str], processes: int) -> None:
    """Run a command to its end, as a person does."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    words = [sys.executable, *(launcher if processes > 1 else []), "-m", "autoslim_cli", *command]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(words, cwd=place, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command} fails undisturbed: {done.stderr}")


def import_everything() -> None:
    """Import what commands import, so that forks need not."""
    import autoslim_cli

    for module in pkgutil.walk_packages(autoslim_cli.__path__, "autoslim_cli."):
        importlib.import_module(module.name)
    late = ("torch._dynamo", "torch._meta_registrations", "torch.distributed.launcher.api", "fvcore.nn")
    for name in (*late, "matplotlib.figure", "matplotlib.backends.backend_agg"):
        importlib.import_module(name)


def _become(place: Path, command: list[str], processes: int, said: IO[str]) -> NoReturn:
    """Be the command in this process, which was forked for it."""
    code = 1
    try:
        os.chdir(place)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(said.fileno(), 2)
        sys.argv = ["autoslim", *command]
        if processes > 1:
            _be_torchrun(processes)
        else:
            _be_worker()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _be_torchrun(processes: int) -> None:
    """Be torchrun --standalone: start the workers, and end them all if one dies."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="fork",
    )
    elastic_launch(config, _be_worker)()


def _be_worker() -> None:
    """Be `autoslim`, with the signals of a new process, but for its way out: torchrun waits for a function's return."""
    from autoslim_cli.cli.app import app
    from autoslim_cli.streams import steady_streams

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    steady_streams()
    try:
        app(prog_name="autoslim")
    except SystemExit as end:
        if end.code:
            raise


class Start:
    """A command that runs as a fork of this process, and what it says."""

    def __init__(self, place: Path, command: list[str], processes: int, limit: float) -> None:
        self.said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  it goes with this object
        self.deadline = time.monotonic() + limit
        self.code: int | None = None
        self.cpu = 0.0
        sys.stderr.flush()
        self.process = os.fork()
        if not self.process:
            _become(place, command, processes, self.said)

    def over(self) -> bool:
        """Tell whether it has ended; its code and CPU time are known then."""
        if self.code is None:
            process, status, used = os.wait4(self.process, os.WNOHANG)
            if process:
                self.code, self.cpu = os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
        return self.code is not None

    def reached(self, cpu: float, directory: Path | None = None) -> bool:
        """Wait until it took so much CPU time, and, of a directory, writes a file there; False if it ends before."""
        while not self.over() and time.monotonic() < self.deadline:
            if cpu_of(tree(self.process)) < cpu:
                time.sleep(0.005)
            elif directory is None or any(directory.glob(".*.part")):
                return True
            else:
                time.sleep(0.0005)
        return False

    def ended(self) -> bool:
        """Wait for its end; False if it hangs: then it is killed."""
        while not self.over():
            if time.monotonic() > self.deadline:
                self.kill_all()
                return False
            time.sleep(0.01)
        return True

    def kill_all(self) -> None:
        """Kill all processes at once: the first is stopped before, so that it starts no more."""
        os.kill(self.process, signal.SIGSTOP)
        for one in tree(self.process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        while not self.over():
            time.sleep(0.001)

    def kill_worker(self, rng: random.Random) -> bool:
        """Kill one of the workers; False if there are none yet."""
        workers = tree(self.process)[1:]
        if not workers:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(workers), signal.SIGKILL)
        return True

    def words(self) -> str:
        """Return what it said on stderr."""
        self.said.seek(0)
        return self.said.read()
