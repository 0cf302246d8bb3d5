"""Name files that are being written, and remove those whose writer was killed."""

import contextlib
import glob
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

with contextlib.suppress(ImportError):  # not on every system; there nothing is locked, and nothing removed
    import fcntl


@contextlib.contextmanager
def part_of(path: Path) -> Iterator[Path]:
    """Give a new file beside `path`, to be renamed in the end: else it goes.

    It is locked meanwhile. Parts of `path` that are not were left by commands that were killed, and go as well.
    """
    for part in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}.part"):
        _drop_if_left(part)
    part, descriptor = _begun(path)
    try:
        yield part
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        raise
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _begun(path: Path) -> tuple[Path, int | None]:
    """Create a part of a file; return it with the descriptor that holds its lock, if there are locks."""
    while True:
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            if _lock(descriptor, part):
                return part, descriptor
        except OSError:
            os.close(descriptor)
            return part, None
        os.close(descriptor)  # before we had the lock another command took it for left, and removes it: try again


def _drop_if_left(part: Path) -> None:
    """Remove a part if nobody writes it: the operating system ends a lock with its process."""
    with contextlib.suppress(OSError):
        descriptor = os.open(part, os.O_WRONLY)
        try:
            if _lock(descriptor, part):
                os.unlink(part)
        finally:
            os.close(descriptor)


def _lock(descriptor: int, part: Path) -> bool:
    """Lock an open part; tell whether it is there and ours. Raises OSError where there are no locks."""
    if "fcntl" not in globals():
        raise OSError("this system has no locks")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), part.stat())
    except (BlockingIOError, FileNotFoundError):
        return False
