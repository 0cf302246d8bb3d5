"""Remove what autoslim made in recipe directories below recipes/ and runs/; whatever a person may have made stays.

python scripts/clean.py [DIRECTORY]: of that directory instead of this one. Needs no installed package. A file goes
if it says itself that autoslim made it; latency tables, which are measurements of a device, stay.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def found_by_search(path: Path) -> bool:
    """Tell whether a channel config is as `search` wrote it, under the name that it gave: it can be found again.

    An edited copy has another name, or lost the cost that no longer holds: both are a person's.
    """
    values = as_object(path.read_text(encoding="utf-8"))
    found = values.get("found")
    if values.get("format") != "autoslim.channels/1" or not isinstance(found, dict) or "cost" not in values:
        return False
    label = str(found.get("budget")).replace("flops<=", "").replace(" and ", "-").replace("<=", "-")
    label = label.replace("activation_memory", "activation-memory").replace("%", "pct")
    named = path.stem == f"arch-{label}" or ("latency" in label and path.stem.startswith(f"arch-{label}-"))
    return named and str(found.get("supernet")).startswith("sha256:")


def a_checkpoint(path: Path) -> bool:
    """Tell whether the metadata of a safetensors file are autoslim's."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = as_object(file.read(size).decode("utf-8") if size < 2**27 else "")
    metadata = header.get("__metadata__")
    return isinstance(metadata, dict) and "autoslim" in metadata


def a_log(path: Path) -> bool:
    """Tell whether a search wrote this log."""
    with path.open(encoding="utf-8") as file:
        return str(as_object(file.readline(2**24)).get("format")).startswith("autoslim.search/")


def a_page(path: Path) -> bool:
    """Tell whether a page or a drawing is of `autoslim report`."""
    with path.open(encoding="utf-8") as file:
        start = file.read(4096)
    return 'name="generator" content="autoslim ' in start or start.startswith(
        '<svg xmlns="http://www.w3.org/2000/svg" data-by="autoslim"'
    )


def a_picture(path: Path) -> bool:
    """Tell whether a picture is of `autoslim report --png`."""
    with path.open("rb") as file:
        start = file.read(4096)
    return start.startswith(b"\x89PNG") and b"Software\0autoslim" in start


def by_name(_path: Path) -> bool:
    """Trust a name that only autoslim gives."""
    return True


MADE: dict[str, Callable[[Path], bool]] = {
    "arch-*.json": found_by_search,
    "*.safetensors": a_checkpoint,
    **dict.fromkeys(("search.jsonl", "search.old-*.jsonl"), a_log),
    **dict.fromkeys(("report.html", "report-*.svg"), a_page),
    "report-*.png": a_picture,
    **dict.fromkeys(("supernet.resume*.pt", "joint.resume*.pt", "model-*.resume*.pt", ".*.part", ".*.lock"), by_name),
    **dict.fromkeys(("supernet.metrics.jsonl", "joint.metrics.jsonl", "model-*.metrics.jsonl"), by_name),
    **dict.fromkeys(("report.json", "spectrum.json", "spectrum.png"), by_name),
}
"""What autoslim writes into a recipe directory, and how it is told from what others write."""


def as_object(text: str) -> dict[str, Any]:
    """Read a JSON object; anything else is an empty one."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def was_made(path: Path, test: Callable[[Path], bool]) -> bool:
    """Tell whether autoslim made a file; what cannot be read or told stays."""
    try:
        return path.is_file() and not path.is_symlink() and test(path)
    except (OSError, UnicodeDecodeError):
        return False


def main() -> None:
    """Remove it, and say what of the kind stays."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    for name in ("smoke", "smoke-tasks"):  # `make NAME` alone makes it, and anew each time
        shutil.rmtree(root / "runs" / name, ignore_errors=True)
    recipes = sorted(file.parent for place in ("recipes", "runs") for file in (root / place).rglob("recipe.yaml"))
    for directory in recipes:
        for pattern, test in MADE.items():
            for path in sorted(directory.glob(pattern)):
                if was_made(path, test):
                    path.unlink()
                else:
                    print(f"stays: {path}, which no command wrote as it is")


if __name__ == "__main__":
    main()
