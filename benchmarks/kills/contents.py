"""What a recipe's directory holds, and where in its work a start was killed."""

import contextlib
import json
from pathlib import Path

CLOCK = ("seconds", "images_per_second", "waiting", "memory")
"""What no two runs have in common: of lines of metrics, and of searches' logs."""
WHERE = ("before its first write", "between writes", "in a write", "after its last write")


def contents(directory: Path) -> dict[str, bytes]:
    """Return what is compared of each file, by name: its bytes, of lines of JSON those without what a clock said."""
    return {path.name: _content(path) for path in _shown(directory)}


def _shown(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if not path.name.startswith("."))


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix != ".jsonl" or not content.endswith(b"\n"):
        return content
    rows = [json.loads(line) for line in content.splitlines()]
    return "".join(json.dumps({k: v for k, v in row.items() if k not in CLOCK}) + "\n" for row in rows).encode()


def differences(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Name the files that differ, are missing, or should not be there."""
    names = sorted({*found, *expected})
    kind = {name: "differs" if name in found else "is missing" for name in expected}
    return [f"{name} {kind.get(name, 'is left')}" for name in names if found.get(name) != expected.get(name)]


def stamps(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Return what changes of a file that is written; locks hold no work."""
    found = {}
    for path in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.suffix != ".lock":
                status = path.stat()
                found[path.name] = status.st_ino, status.st_size, status.st_mtime_ns
    return found


def where_it_hit(directory: Path, before: dict[str, tuple[int, int, int]], expected: dict[str, bytes]) -> str:
    """Say where in its work a start was killed."""
    now = stamps(directory)
    torn = any(not path.read_bytes().endswith(b"\n") for path in directory.glob("*.jsonl") if path.exists())
    if torn or any(name.endswith(".part") for name in now.keys() - before.keys()):
        return WHERE[2]
    with contextlib.suppress(FileNotFoundError):  # the other workers may still be at work
        if not differences(contents(directory), expected):
            return WHERE[3]
    return WHERE[0] if now == before else WHERE[1]
