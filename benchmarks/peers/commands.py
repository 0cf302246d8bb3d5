"""Run autoslim's commands and the peers' scripts as processes of their own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from plan import TOOLS

ROOT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, str]:
    """Return this process's environment, with autoslim's sources to import."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def autoslim(*arguments: object) -> dict[str, Any]:
    """Run a command with --json; return what it printed, and how long it took. Ends the benchmark where it fails."""
    return _run([sys.executable, "-m", "autoslim_cli", *map(str, arguments), "--json"])


def peer(tool: str, script: str, *arguments: object) -> dict[str, Any]:
    """Run a peer's script in its own python; return the last line that it printed."""
    return _run([python_of(tool), str(Path(__file__).with_name(script)), *map(str, arguments)])


def _run(command: list[str]) -> dict[str, Any]:
    began = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment(), check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nended with exit code {done.returncode}\n{done.stdout[-2000:]}")
    said: dict[str, Any] = json.loads(_last_object(done.stdout))
    return {**said, "wall": round(time.perf_counter() - began, 2)}


def _last_object(text: str) -> str:
    """Return the whole text if it is one JSON object, else its last line: peers print before it."""
    return text if text.lstrip().startswith("{") else text.strip().splitlines()[-1]


def python_of(tool: str) -> str:
    """Return the python that has a tool."""
    return os.environ.get(TOOLS[tool][0]) or sys.executable


def installed(tool: str) -> bool:
    """Return whether a tool's python imports it."""
    try:
        code = subprocess.run(
            [python_of(tool), "-c", f"import {TOOLS[tool][1]}"], capture_output=True, env=environment(), check=False
        ).returncode
    except OSError:
        return False
    return code == 0
