"""Change what files say of themselves, for tests of what happens then, and compare what they hold."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch


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


def assert_close(one: Path, other: Path, *, but: Sequence[str] = (), **tolerance: float) -> None:
    """Compare the tensors of two checkpoints, but for BN's counts of batches and what ends in other names."""
    first, second = safetensors.torch.load_file(one), safetensors.torch.load_file(other)
    assert first.keys() == second.keys()
    for name in first:
        if not name.endswith(("num_batches_tracked", *but)):
            torch.testing.assert_close(
                first[name], second[name], **tolerance, msg=lambda text, name=name: f"{name}: {text}"
            )
