"""What hypothesis damages in sound files ends in one line, or is still sound to its reader.

The files and their readers are those of `benchmarks/fuzzing`. A few examples of each reader by default;
AUTOSLIM_EXAMPLES=3000 asks for more.
"""

import copy
import io
import json
import os
import time

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from outside import outside

from autoslim_cli.errors import AutoslimError

EXAMPLES = int(os.environ.get("AUTOSLIM_EXAMPLES", "6"))
READERS = (
    *("recipe", "config", "checkpoint", "supernet", "weights", "log", "metrics", "latency table", "suite"),
    *("training state", "lock", "slimmable", "info", "compare", "report"),
)
HANG_S = 10
WHOLE = 10
"""One in how many is replaced as a whole, not in a place within it."""


@pytest.fixture(scope="module")
def fuzz():
    parts = ("fuzzing.corpus", "fuzzing.damage", "fuzzing.readers")
    with outside("benchmarks", names=["fuzzing", *parts]) as modules:
        yield modules.fuzzing


@pytest.fixture(scope="module")
def readers(fuzz, tmp_path_factory):
    """Return every reader by its name; what it reads is sound."""
    found = {one.name: one for one in fuzz.readers.readers_of(fuzz.corpus.corpus(tmp_path_factory.mktemp("sound")))}
    for reader in found.values():
        for file in reader.files:
            if file.name not in fuzz.corpus.REFUSED:
                reader.read(file)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


def refused_or_sound(reader, file, content, place):
    """Let a reader read a file of some content: it raises what is autoslim's own, or finds what passes its checks."""
    path = place / f"input{file.suffix}"
    path.write_bytes(content)
    began, said = time.process_time(), ""  # a busy machine is no hang
    try:
        reader.read(path)
    except AutoslimError as error:
        said = str(error)
    assert "\n" not in said
    assert time.process_time() - began < HANG_S


MANY = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


# How the content of a file is a value of dicts and lists, and comes of one.


def lines(content):
    return [json.loads(line) for line in content.splitlines()]


def header(content):
    size = int.from_bytes(content[:8], "little")
    values = json.loads(content[8 : 8 + size])
    values["__metadata__"]["autoslim"] = json.loads(values["__metadata__"]["autoslim"])
    return values


def with_header(values, content):
    """Return a safetensors file of another header: the facts of a checkpoint are JSON within JSON."""
    facts = values.get("__metadata__") if isinstance(values, dict) else None
    if isinstance(facts, dict) and not isinstance(facts.get("autoslim", ""), str):
        facts["autoslim"] = json.dumps(facts["autoslim"])
    text = json.dumps(values).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + int.from_bytes(content[:8], "little") :]


def state(values, _):
    buffer = io.BytesIO()
    torch.save(values, buffer)
    return buffer.getvalue()


FORMS = {
    ".json": (json.loads, lambda values, _: json.dumps(values).encode()),
    ".lock": (json.loads, lambda values, _: json.dumps(values).encode()),
    ".yaml": (yaml.safe_load, lambda values, _: yaml.safe_dump(values).encode()),
    ".jsonl": (lines, lambda values, _: "\n".join(map(json.dumps, as_list(values))).encode()),
    ".safetensors": (header, with_header),
    ".pt": (lambda content: torch.load(io.BytesIO(content), weights_only=True), state),
}


def as_list(value):
    return value if isinstance(value, list) else [value]


# Damage.


def any_value(words):
    """Return values of JSON: of any kind, or words that mean something to somebody."""
    numbers = st.integers() | st.integers(-2, 3) | st.floats() | st.sampled_from((2**31, 2**63, 10**30, 1e308))
    copied = st.sampled_from(words).map(copy.deepcopy)  # the next damage may be within one
    leaves = st.none() | st.booleans() | numbers | st.text(max_size=20) | copied
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    )


def places(value):
    """Return every place in a value: what holds it, and its key there."""
    found, todo = [], [value]
    while todo:
        one = todo.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        found += [(one, key) for key in keys]
        todo += [one[key] for key in keys]
    return found


@st.composite
def damaged(draw, file, fuzz):
    """Return a file's content with values at some places replaced, deleted, inserted, copied or exchanged."""
    content, (value_of, content_of) = file.read_bytes(), FORMS[file.suffix]
    values, value = any_value(fuzz.damage.HOSTILE), value_of(content)
    for _ in range(draw(st.integers(1, 3))):
        found = places(value)
        if not found or draw(st.integers(1, WHOLE)) == WHOLE:
            return content_of(draw(values), content)
        somewhere = st.integers(0, len(found) - 1).map(found.__getitem__)
        (one, key), (other, name) = draw(somewhere), draw(somewhere)
        match draw(st.sampled_from(("replace", "delete", "insert", "copy", "exchange", "count"))):
            case "replace":
                one[key] = draw(values)
            case "delete":
                del one[key]
            case "insert" if isinstance(one, dict):
                one[draw(st.text(max_size=8) | st.sampled_from([*map(str, other)] if other else [""]))] = draw(values)
            case "insert":
                one.insert(key, draw(values))
            case "copy":
                one[key] = copy.deepcopy(other[name])
            case "exchange":
                there = copy.deepcopy(other[name])
                other[name] = copy.deepcopy(one[key])
                one[key] = there
            case "count" if isinstance(one[key], int | float) and not isinstance(one[key], bool):
                one[key] += draw(st.integers(-3, 3))
            case _:
                one[key] = [one[key]]
    return content_of(value, content)


@st.composite
def spliced(draw, file):
    """Return a file's content with some bytes replaced by others, by text, or by what stands elsewhere in it."""
    content = file.read_bytes()
    start = draw(st.integers(0, len(content)))
    length = draw(st.sampled_from((0, 0, 1, 2, 8, 64, len(content))))
    elsewhere = st.integers(0, len(content)).map(lambda at: content[at : at + 40])
    put = draw(st.binary(max_size=30) | st.text(max_size=20).map(str.encode) | elsewhere)
    return content[:start] + put + content[start + length :]


# Properties.


def test_every_reader_of_the_fuzzer_is_here(readers):
    assert tuple(readers) == READERS


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
@MANY
def test_values_that_are_damaged(fuzz, readers, place, name, data):
    reader = readers[name]
    file = data.draw(st.sampled_from([one for one in reader.files if one.name != "bomb.pt"]))
    refused_or_sound(reader, file, data.draw(damaged(file, fuzz)), place)


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
@MANY
def test_bytes_that_are_damaged(readers, place, name, data):
    reader = readers[name]
    file = data.draw(st.sampled_from(reader.files))
    content = data.draw(spliced(file) | st.binary() | st.text().map(str.encode))
    refused_or_sound(reader, file, content, place)
