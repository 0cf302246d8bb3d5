"""Keep two commands from making the same file at once."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from autoslim_cli.errors import UsageError
from autoslim_cli.launch import launched

LONGEST_NAME = 200
"""Bytes of a file's name; file systems hold 255, and what is kept beside it meanwhile has up to 40 more."""

with suppress(ImportError):  # not on every system; there nothing is locked
    import fcntl

_HELD: set[int] = set()
"""Descriptors of the locks that this process holds."""


def _leave_to_parent() -> None:
    """Close the locks in a forked process: one that loads images may outlive a command that is killed."""
    for descriptor in _HELD:
        os.close(descriptor)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


@contextmanager
def locked(*paths: Path) -> Iterator[None]:
    """Let no other command make these files meanwhile; `.NAME.lock` beside each says who makes it: process and host.

    The lock is the operating system's: that of a process that ended, however it did, is taken over. Of the processes of
    a torchrun job the first holds it for all. Raises UsageError naming the process that makes a file, or a name that
    leaves no room for those of the files beside it.
    """
    for path in paths:
        if (size := len(os.fsencode(path.name))) > LONGEST_NAME:
            raise UsageError(f"{path.name}: a name of {size} bytes; choose one of {LONGEST_NAME} at most")
    with ExitStack() as stack:
        for path in sorted(set(paths)) if launched().first and "fcntl" in globals() else ():
            stack.enter_context(_one(path))
        yield


@contextmanager
def _one(path: Path) -> Iterator[None]:
    """Lock one file; of a symbolic link the file that it leads to, which others may know by another name."""
    real = Path(os.path.realpath(path))
    lock = real.with_name(f".{real.name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _taken(path, lock)
    _HELD.add(descriptor)
    try:
        owner = {"pid": os.getpid(), "host": socket.gethostname()}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        yield
    finally:
        if descriptor in _HELD:  # else this is a forked process, and the lock its parent's
            _HELD.remove(descriptor)
            with suppress(FileNotFoundError):
                lock.unlink()
            os.close(descriptor)


def _taken(path: Path, lock: Path) -> int:
    """Return an open lock file that is ours. Raises UsageError if another process has it."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            owner = _owner(descriptor)
            if owner.get("host", socket.gethostname()) != socket.gethostname():  # whose locks may not reach here
                raise BlockingIOError
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), lock.stat()):
                    return descriptor
        except BlockingIOError:
            owner = _owner(descriptor)
            os.close(descriptor)
            raise UsageError(
                f"{path}: process {owner.get('pid', '?')} on {owner.get('host', '?')} is making it; wait for it, or "
                f"remove {lock} if it has ended"
            ) from None
        os.close(descriptor)  # its last owner removed it between our two calls: try again


def _owner(descriptor: int) -> dict[str, object]:
    """Return what a lock file says of its owner."""
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
    except (ValueError, RecursionError):
        return {}
    return owner if isinstance(owner, dict) else {}
