"""Run autoslim's commands from a script, and stop at the first thing that does not hold."""

import json
import subprocess
import sys
import time
from typing import Any


def autoslim(*arguments: str) -> dict[str, Any]:
    """Run one command; return the JSON object that it prints. Ends the script where the command fails."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "autoslim_cli", *arguments, "--json"], check=False, stdout=subprocess.PIPE, text=True
    )
    print(f"[{time.monotonic() - started:5.1f} s] autoslim {' '.join(arguments)}", flush=True)
    if done.returncode:
        sys.exit(f"{sys.argv[0]}: exit code {done.returncode}")
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def check(holds: bool, what: str) -> None:
    """End the script if something does not hold."""
    print(f"  {'ok  ' if holds else 'FAIL'} {what}", flush=True)
    if not holds:
        sys.exit(f"{sys.argv[0]}: {what}: does not hold")
