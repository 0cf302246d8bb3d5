"""What stages name, one module reads back; and every reading of a name makes that name again."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoslim_cli.cost.budget import parse, parse_many
from autoslim_cli.files import names
from autoslim_cli.files.measures import MEASURES

BASE = dict.fromkeys(MEASURES, 1e9)
NUMBERS = st.one_of(
    st.integers(1, 10**9).map(str),
    st.tuples(st.integers(0, 999), st.integers(1, 9999)).map(lambda parts: f"{parts[0]}.{parts[1]}"),
)
DEVICES = st.sampled_from(["", "cpu-2-threads", "pixel", "my phone", "params-2M", "12ms"])


@st.composite
def budgets(draw):
    """A budget as options ask for it: of one measure or of several, in any unit, or in per cents."""
    measures = draw(st.lists(st.sampled_from(list(MEASURES)), min_size=1, unique=True))
    texts = {m: draw(NUMBERS) + draw(st.sampled_from(["%", *(u.lower() for u in MEASURES[m].units)])) for m in measures}
    (budget,) = parse_many(texts, BASE)
    return replace(budget, device=draw(DEVICES) if "latency" in texts else "")


@pytest.mark.parametrize(
    ("text", "limit"), [("1.001K", 1001), ("1.001M", 1_001_000), ("4.999M", 4_999_000), ("0.29%", 2_900_000)]
)
def test_a_bound_is_the_number_that_was_written(text, limit):
    assert parse("flops", text, 1e9).limit == limit


def test_a_file_beyond_every_path_goes_by_its_own(monkeypatch):
    assert names.relative(Path("/a/b/c"), Path("/a/d")) == "../b/c"

    def other_drive(*_: object) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", other_drive)
    assert names.relative(Path("/a/b/c"), Path("/a/d")) == "/a/b/c"


@given(budgets())
def test_the_label_of_a_budget_says_what_was_asked(budget):
    asked = names.budget_of(budget.label)
    assert asked
    (again,) = parse_many(asked.bounds, BASE)
    assert (again.bounds, asked.device) == (budget.bounds, names.file_name(budget.device))
    path = Path(names.config_file(budget.label))
    assert names.config_name(path) == budget.label


NO_LABELS = ["mine", "12ms", "300m", "300.0M", "0300M", "0M", "50%", "50pc", "300M-", "-300M", "300M-mine", "300M-300M"]
NO_LABELS += [
    "",
    "params",
    "params-2ms",
    "params-2M-300M",
    "2M-params",
    "latency-12ms-",
    "activation_memory-4MB",
    "9" * 25,
]


@pytest.mark.parametrize("name", NO_LABELS)
def test_what_no_budget_is_called_is_no_label(name):
    assert names.budget_of(name) is None


@pytest.mark.parametrize("width", [0.25, 0.5, 1, 1.5, 0.333333, 1 / 3, 0.1 + 0.2])
def test_the_name_of_a_width_says_it(width):
    assert names.width_of(names.width_name(width)) == pytest.approx(width, rel=1e-5)


@pytest.mark.parametrize("name", ["", "width-", "0.5", "width-0.50", "width-1.0", "width-nan", "width-x", "width--1"])
def test_what_no_width_is_called_says_none(name):
    assert names.width_of(name) is None


STARTS = {"scratch": "", "supernet": "supernet", "weights": "weights", "model-40M.safetensors": "40M"} | {
    "../other/model-40M-from-supernet.safetensors": "40M-from-supernet",
    "model-40M-joint.safetensors": "40M-joint",
    "subnet-1.5G.safetensors": "subnet-1.5G",
    "backbone.pth": "backbone",
}


def said_first(name):
    """What a name most likely says, read from the file of the network."""
    return next(names.readings(names.network_name(Path(names.model_file(name)))))


@given(budgets(), st.sampled_from(list(STARTS)), st.sampled_from([0.25, 0.5, 1.0]))
def test_the_name_of_a_retrained_network_says_all(budget, start, width):
    asked, label = names.budget_of(budget.label), STARTS[start]
    for name, said in {
        budget.label: names.Said(config=budget.label),
        names.width_name(width): names.Said(width=width),
        names.uniform_name(budget.label): names.Said(uniform=asked),
        "autoslim-217M": names.Said(config="autoslim-217M"),
        "base": names.Said(config="base"),
    }.items():
        assert said_first(names.started_name(name, start)) == replace(said, start=label)
    assert said_first(names.joint_name(budget.label)) == names.Said(config=budget.label, joint=True)


PIECES = (
    "width-0.5",
    "uniform-",
    "300M",
    "params-2M",
    "mine",
    "-from-",
    "-joint",
    "supernet",
    "latency-12ms",
    "-",
    "joint",
)


@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join))
def test_every_reading_of_a_name_makes_it_again(name):
    readings = list(names.readings(name))
    assert [said.name for said in readings] == [name] * len(readings)
    assert readings


def test_files_are_called_after_what_they_hold():
    assert names.model_file("my net") == "model-my-net.safetensors"
    assert names.network_name(Path("x/model-subnet-40M.safetensors")) == "subnet-40M"
    assert names.network_name(Path(names.subnet_file("model-40M"))) == "model-40M"
    assert names.device_of(Path(names.table_file("cpu-2-threads"))) == "cpu-2-threads"
    for file in (names.state_file, names.metrics_file):
        assert names.trained_in(Path("x") / file("model-1.5G")) == "model-1.5G"
    kept = names.aside(Path("x/model-40M.safetensors"), 12)
    assert kept == Path("x/model-40M.old-12.safetensors")
    assert names.is_aside(kept)
    assert not names.is_aside(Path("model-my.old-net.safetensors"))
