"""What a machine's memory and devices allow."""

import pytest
import torch

from autoslim_cli import machine
from autoslim_cli.errors import UsageError


def test_memory_that_was_freed_is_free(monkeypatch):
    """It counted as taken, so that the later stages of a command that trains twice were refused."""
    machine.keep_freed_memory()
    size = 2**28
    held = [torch.ones(2**20) for _ in range(size // 2**22)]
    assert machine._handed_back() < size // 2
    del held
    assert machine._handed_back() > size // 2
    monkeypatch.setattr(machine, "_handed_back", lambda: 2**50)
    assert machine.free_memory(torch.device("cpu")) > 2**50


def test_the_processes_of_a_machine_do_not_share_a_gpu_that_is_named(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="2 processes on this machine would share one"):
        machine.choose_device("cuda:0")
    assert machine.choose_device("cpu:0").type == "cpu"
