"""Damage files: bytes, values, the facts and tensors of checkpoints, and the factory that a file names."""

import copy
import io
import json
import random
import struct
from typing import Any

import torch
import yaml

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, -0.5, 1e308, float("nan"), float("inf"), "", " ", "0", "nan"),
    *([], {}, [[]], [None], {"": None}, "\x00", "\ud800", "a" * 70_000, "../../etc/passwd", "sha256:", "conv1", "fc"),
    *([1] * 3000, [0, 0, 0], [1e9, 1e9, 1e9], {"a": {"b": {"c": []}}}, "1e999", "~", "!!python/object:os.system"),
)
"""Values that code may not expect."""
PAYLOAD = "import os\n\nos.system('true')\n\n\ndef network(**_):\n    os.system('true')\n"
CODE: tuple[tuple[str, dict[str, Any]], ...] = (
    *(("./payload.py:network", {}), ("os:system", {}), ("os:system", {"command": "true"}), ("payload:network", {})),
    *(("subprocess:run", {"args": ["true"]}), ("torch.hub:load", {"repo_or_dir": ".", "model": "x"})),
    *(("torchvision/resnet18", {"weights": "DEFAULT"}), ("torchvision.models:resnet18", {"weights": "DEFAULT"})),
    *(("autoslim/cifar_resnet:os.system", {}), ("autoslim_cli.files.atomic:write_text", {"path": "x", "text": "x"})),
)
"""Factories and arguments that a file must not have called."""


def mutated(content: bytes, suffix: str, rng: random.Random) -> bytes:
    """Return a damaged copy of a file: its values, or its bytes."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        structured = {".json": _json, ".yaml": _yaml, ".jsonl": _lines, ".safetensors": _header, ".pt": _state}
        change = structured.get(suffix, _bytes) if rng.random() < 0.7 else _bytes
        try:
            content = change(content, rng)
        except Exception:  # damaged already, so that it is only bytes
            content = _bytes(content, rng)
    return content


def _bytes(content: bytes, rng: random.Random) -> bytes:
    """Flip, drop, repeat, insert or cut bytes."""
    data = bytearray(content)
    at = rng.randrange(len(data) + 1)
    length = rng.choice((1, 1, 2, 8, 64, 1024))
    kind = rng.randrange(6)
    if kind == 0 and data:
        data[at % len(data)] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[at : at + length]
    elif kind == 2:
        data[at:at] = data[at : at + length] * rng.choice((1, 2, 50))
    elif kind == 3:
        data[at:at] = rng.randbytes(length)
    elif kind == 4:
        del data[at:]
    else:
        word = rng.choice((b"\xff" * 8, b"\0" * 8, b"{" * 5000, b"[" * 100_000, b'"', b"\n", b"\xef\xbb\xbf", b"NaN"))
        data[at : at + len(word) if rng.random() < 0.5 else at] = word
    return bytes(data)


def _value(value: Any, rng: random.Random) -> Any:
    """Return a copy of a value with one part of it replaced, removed, added or moved."""
    value = copy.deepcopy(value)
    places: list[tuple[Any, Any]] = []
    todo, entered = [value], set[int]()
    while todo:
        one = todo.pop()
        if id(one) in entered:  # YAML may refer to itself
            continue
        entered.add(id(one))
        keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        places += [(one, key) for key in keys]
        todo += [one[key] for key in keys]
    if not places or rng.random() < 0.02:
        return rng.choice(HOSTILE)
    container, key = rng.choice(places)
    kind = rng.random()
    if kind < 0.6:
        container[key] = rng.choice(HOSTILE)
    elif kind < 0.75:
        del container[key]
    elif kind < 0.85 and isinstance(container, dict):
        container[rng.choice(("", "x", "extra", str(key) + "s", "\x00"))] = rng.choice(HOSTILE)
    elif kind < 0.95:
        other, name = rng.choice(places)
        container[key] = copy.deepcopy(other.get(name) if isinstance(other, dict) else other[name % max(len(other), 1)])
    elif isinstance(container[key], int | float) and not isinstance(container[key], bool):
        container[key] = container[key] * rng.choice((-1, 0.5, 2, 1e6)) + rng.choice((0, 1))
    return value


def _json(content: bytes, rng: random.Random) -> bytes:
    """Change a value of a JSON file."""
    return json.dumps(_changed(json.loads(content), rng)).encode()


def _changed(values: Any, rng: random.Random) -> Any:
    """Change a value; now and then the factory of the model that is named."""
    model = values.get("model", values.get("config", {}).get("model")) if isinstance(values, dict) else None
    if not isinstance(model, dict) or rng.random() < 0.8:
        return _value(values, rng)
    model["name"], model["args"] = rng.choice(CODE)
    return values


def _yaml(content: bytes, rng: random.Random) -> bytes:
    """Change a value of a YAML file; or let it refer to itself."""
    if rng.random() < 0.1:
        return content + rng.choice(
            (
                *(b"\nx: &a [*a]\n", b"\nabout: &a [1,1]\nx: [*a,*a]\n", b"\n? [1]\n: 2\n", b"\n1: 2\n"),
                b"\nabout: ["
                + b",".join(b"&a%d [%s]" % (n, b",".join([b"*a%d" % (n - 1) if n else b"1"] * 9)) for n in range(9))
                + b"]",
                b"\nseed: 1" + b":1" * 50_000,
            )
        )
    return yaml.safe_dump(_value(yaml.safe_load(content), rng)).encode()


def _lines(content: bytes, rng: random.Random) -> bytes:
    """Change a value of a line, or the order of lines."""
    lines = content.split(b"\n")
    at = rng.randrange(len(lines))
    if rng.random() < 0.2:
        rng.shuffle(lines)
    else:
        lines[at] = _json(lines[at], rng)
    return b"\n".join(lines)


def _header(content: bytes, rng: random.Random) -> bytes:
    """Change the facts of a checkpoint, what its header says of its tensors, or a value of one."""
    size = int.from_bytes(content[:8], "little")
    header, rest = json.loads(content[8 : 8 + size]), content[8 + size :]
    kind = rng.random()
    if kind < 0.15:
        value = struct.pack("<f", rng.choice((float("nan"), float("inf"), -float("inf"), -1.0)))
        at = rng.randrange(0, len(rest) - 3, 4)
        rest = rest[:at] + value + rest[at + 4 :]
    elif kind < 0.8:
        facts = _changed(json.loads(header["__metadata__"]["autoslim"]), rng)
        header["__metadata__"]["autoslim"] = json.dumps(facts)
    else:
        header = _value(header, rng)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + rest


def _state(content: bytes, rng: random.Random) -> bytes:
    """Change a value of a training state, or of one of its tensors."""
    state = torch.load(io.BytesIO(content), weights_only=True)
    buffer = io.BytesIO()
    if rng.random() < 0.2:
        moments = [moment for entry in state["optimizer"]["state"].values() for moment in entry.values()]
        rng.choice([*state["network"].values(), *moments]).view(-1)[0] = rng.choice((-1, 10**6))
        rng.choice([*filter(torch.is_floating_point, state["network"].values()), *moments]).fill_(float("nan"))
    else:
        state = _value(state, rng)
    torch.save(state, buffer)
    return buffer.getvalue()
