"""Change what files say of themselves, for tests of what happens then."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch


def rewritten(path: Path, change: Callable[[dict[str, Any]], object], target: Path | None = None) -> Path:
    """Write a channel config or a checkpoint anew, in place or to `target`, with its facts changed."""
    target = target or path
    if path.suffix == ".json":
        facts = json.loads(path.read_text())
        change(facts)
        target.write_text(json.dumps(facts))
        return target
    with safetensors.safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["autoslim"])
    change(facts)
    metadata = {"autoslim": json.dumps(facts)}
    target.write_bytes(safetensors.torch.save(safetensors.torch.load_file(path), metadata))
    return target
