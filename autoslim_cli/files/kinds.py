"""Say what a file is, for a person who gave it where another kind was expected."""

import json
from pathlib import Path

_LONGEST = 2**24
"""Bytes of a header or a document that are looked at: no file that autoslim writes has more of either."""

CONFIG = "a channel config"
SUPERNET, NETWORK, FOREIGN = "a supernet", "a trained network", "safetensors that autoslim did not write"
CHECKPOINTS = (SUPERNET, NETWORK, FOREIGN)
WEIGHTS, DOCUMENT, TEXT = "weights, or what else torch.save wrote", "another JSON file", "a text file"

_FORMATS = {
    "autoslim.recipe/": "a recipe's recipe.yaml",
    "autoslim.channels/": CONFIG,
    "autoslim.supernet/": SUPERNET,
    "autoslim.model/": NETWORK,
    "autoslim.latency/": "a latency table",
    "autoslim.latency-suite/": "the manifest of a latency suite",
    "autoslim.search/": "the log of a search",
}


def what_is(path: Path) -> str | None:
    """Say what a file or directory is, as "a channel config"; None if it is not there, or nothing tells."""
    if path.is_dir():
        return "a directory"
    try:
        with path.open("rb") as file:
            head = file.read(_LONGEST)
    except OSError:
        return None
    if head[:4] == b"PK\x03\x04" or (head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5"):
        return "a program of torch.export" if path.suffix == ".pt2" else WEIGHTS
    size = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 8 + size <= len(head):
        return _of_safetensors(head[8 : 8 + size])
    if path.suffix == ".onnx":
        return "an ONNX file"
    return _of_text(head, path.suffix)


def _of_safetensors(header: bytes) -> str:
    """Say what a safetensors file is by its header."""
    try:
        facts = json.loads(json.loads(header)["__metadata__"]["autoslim"])
    except (KeyError, RecursionError, TypeError, ValueError):
        return FOREIGN
    return _of_format(facts) or FOREIGN


def _of_text(head: bytes, suffix: str) -> str | None:
    """Say what a document is by its format; letters alone make a text of it, where its name says nothing else."""
    try:
        text = head.decode()
    except UnicodeDecodeError:
        return None
    if text.lstrip().startswith("format: autoslim.recipe/"):
        return _FORMATS["autoslim.recipe/"]
    for document in (text, text.partition("\n")[0]):  # the latter of a log
        try:
            return _of_format(json.loads(document)) or DOCUMENT
        except (RecursionError, ValueError):
            continue
    return TEXT if text.strip() and suffix not in (".json", ".jsonl", ".safetensors") else None


def _of_format(values: object) -> str | None:
    """Say what holds such values."""
    name = values.get("format") if isinstance(values, dict) else None
    return next((what for start, what in _FORMATS.items() if str(name).startswith(start)), None)
