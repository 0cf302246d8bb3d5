"""What a machine's memory and devices allow."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from autoslim_cli import machine
from autoslim_cli.data.transforms import moved
from autoslim_cli.errors import UsageError, is_out_of_memory
from autoslim_cli.training import distributed


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


@pytest.mark.parametrize(("device", "waits"), [("cuda", False), ("cpu", True), ("mps", True)])
def test_a_copy_is_waited_for_but_to_a_gpu(device, waits):
    """To main memory it would be read before it is there: from a GPU that is wrong numbers, and no error."""
    asked = {}

    class Given:
        def to(self, device, *, non_blocking):
            asked[device.type] = non_blocking

    moved(Given(), torch.device(device))
    assert asked == {device: not waits}


@pytest.mark.parametrize(
    "words", ["CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "CUDA out of memory."]
)
def test_a_library_without_memory_is_out_of_memory(words):
    assert is_out_of_memory(RuntimeError(words))
    assert not is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED"))


BOTH = "cpu:gloo,cuda:nccl"


@pytest.mark.parametrize(
    ("on_gpus", "mine", "other", "expected"),
    [
        (True, "a", "b", (BOTH, 1)),  # each sees its own alone
        (True, "a", "a", ("gloo", 2)),
        (True, "a", distributed.NO_GPU, ("gloo", 1)),
        (True, None, distributed.NO_GPU, ("gloo", 1)),
        (False, "a", distributed.NO_GPU, ("gloo", 1)),
    ],
)
def test_processes_that_see_one_gpu_each_may_share_it_or_not(monkeypatch, on_gpus, mine, other, expected):
    """NCCL has no two processes on one GPU, and its memory is shared out among those that compute on it."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    store, chosen, begun = dist.HashStore(), [], {}
    store.set("autoslim/told/1", other)
    monkeypatch.setattr(distributed, "rendezvous", lambda *_, **__: iter([(store, 0, 2)]))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **rest: begun.update(rest, backend=backend))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(mine is not None))
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid=mine))
    ranks = distributed.join_ranks(on_gpus=on_gpus)
    assert (begun["backend"], ranks.on_one_gpu) == expected
    assert (ranks.rank, ranks.size, begun["store"]) == (0, 2, store)
    assert chosen == ([torch.device("cuda", 0)] if on_gpus and mine else [])  # else none is woken


@pytest.mark.parametrize("sharing", [1, 4])
def test_processes_share_the_memory_of_their_own_gpu_alone(monkeypatch, sharing):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 70)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (800, 1000))
    assert machine.free_memory(torch.device("cuda"), sharing) == 40 + 800 // sharing
