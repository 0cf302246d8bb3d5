"""The pure parts of benchmarks/kills: what counts as different, and where a kill hit."""

import json
import os

import pytest
from outside import outside


@pytest.fixture(scope="module")
def modules():
    with outside("benchmarks/kills", names=["contents", "processes"]) as modules:
        yield modules


@pytest.fixture(scope="module")
def kills(modules):
    return modules.contents


@pytest.fixture(scope="module")
def processes(modules):
    return modules.processes


@pytest.fixture
def made(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\x00\x01")
    rows = [{"step": 1, "loss": {"loss": 0.5}, "images_per_second": 10.0, "memory": 3}, {"step": 2, "seconds": 1}]
    (tmp_path / "model.metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_only_clocks_and_memory_are_left_out(kills, made):
    before, log = kills.contents(made), made / "model.metrics.jsonl"
    log.write_text(log.read_text().replace("10.0", "11.0").replace('"memory": 3', '"memory": 4'))
    assert kills.differences(kills.contents(made), before) == []
    log.write_text(log.read_text().replace("0.5", "0.6"))
    (made / "model.safetensors").write_bytes(b"\x00\x02")
    (made / "model.old-1.safetensors").write_bytes(b"\x00\x01")
    found = ["model.metrics.jsonl differs", "model.old-1.safetensors is left", "model.safetensors differs"]
    assert kills.differences(kills.contents(made), before) == found
    log.unlink()
    assert "model.metrics.jsonl is missing" in kills.differences(kills.contents(made), before)


def test_where_a_kill_hit(kills, made):
    """Before any write, between two, in one, after all."""
    first, nothing, last, between, write = (
        kills.WHERE[0],
        {},
        kills.WHERE[3],
        kills.WHERE[1],
        kills.WHERE[2],
    )
    before = kills.stamps(made)
    assert kills.where_it_hit(made, before, nothing) == first
    (made / ".model.safetensors.lock").touch()
    assert kills.where_it_hit(made, before, nothing) == first
    (made / "model.safetensors").write_bytes(b"\x00\x01\x02")
    assert kills.where_it_hit(made, before, nothing) == between
    assert kills.where_it_hit(made, before, kills.contents(made)) == last
    part = made / ".model.safetensors.0123abcd.part"
    part.touch()
    assert kills.where_it_hit(made, before, kills.contents(made)) == write
    assert kills.where_it_hit(made, kills.stamps(made), kills.contents(made)) == last  # an earlier kill left it
    part.unlink()
    with (made / "model.metrics.jsonl").open("a") as file:
        file.write('{"step": 3')
    assert kills.where_it_hit(made, before, nothing) == write


def test_processes_and_their_time(processes):
    assert processes.tree(os.getpid())[0] == os.getpid()
    assert processes.cpu_of([os.getpid()]) > 0
