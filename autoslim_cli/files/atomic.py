"""Write files that appear whole or not at all."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

from autoslim_cli.files.part import part_of


def write_bytes(path: Path, data: bytes) -> None:
    """Write beside `path`, flush to disk, rename over it. A symbolic link stays: the file that it leads to is written.

    The umask decides who may read it.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with part_of(path) as part:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)


def copy_file(path: Path, target: Path) -> None:
    """Give a file a second name, in place of what has that name; where there are no hard links, copy it."""
    path, target = Path(os.path.realpath(path)), Path(os.path.realpath(target))
    temporary = target.with_name(f".{target.name}.part")
    temporary.unlink(missing_ok=True)
    if target.exists() and path.samefile(target):  # to rename one name of a file to another would leave both
        return
    try:
        os.link(path, temporary)
    except OSError:
        shutil.copyfile(path, temporary)
    os.replace(temporary, target)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """Write indented JSON with a final newline, atomically; key order is kept."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def sha256(path: Path) -> str:
    """Return `sha256:<hex>` of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def file_name(text: str) -> str:
    """Return text fit for a file's name."""
    return re.sub(r"[^\w.-]+", "-", text)
