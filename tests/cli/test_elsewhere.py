"""Systems that lack what Linux has: Windows knows no fcntl, resource, SIGHUP, or masks of signals."""

import subprocess
import sys
import textwrap

import pytest

WITHOUT = """
import os, signal, sys
import portalocker, psutil, torch  # they know such systems themselves

for name in ("fcntl", "resource", "termios", "pwd"):
    sys.modules[name] = None
for name in ("SIGHUP", "SIGKILL", "pthread_sigmask", "sigwaitinfo", "set_wakeup_fd"):
    delattr(signal, name)
for name in ("register_at_fork", "sched_getaffinity", "getuid", "geteuid"):
    delattr(os, name)

from autoslim_cli.__main__ import main
main()
"""


@pytest.mark.slow
def test_a_whole_job(recipe):
    command = [sys.executable, "-c", textwrap.dedent(WITHOUT)]
    run = subprocess.run([*command, "run", "-r", recipe, "--flops", "50%"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    for name in ("supernet.safetensors", "arch-50pct.json", "report.html"):
        assert (recipe / name).is_file(), sorted(path.name for path in recipe.iterdir())
    assert not list(recipe.glob(".*.part"))
