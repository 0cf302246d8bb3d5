"""Several processes share the work of every stage and do what one does; all are real processes over gloo."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from artifacts import assert_close

from autoslim_cli.seeds import python_random

pytestmark = pytest.mark.slow


def torchrun(count, *arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    command += ["-m", "autoslim_cli", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def logged(log):
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    for row in rows:
        row.pop("seconds", None)
        row.pop("multiply_adds", None)  # ranks repeat some of the shared pass
        if "scored" in row:
            row["scored"] = sorted(row["scored"], key=str)
    return rows


SUMS = """
import os

import torch
from torch import nn

from autoslim_cli.training import distributed
from autoslim_cli.training.distributed import Sum, join_ranks, leave_ranks
from autoslim_cli.training.gradient_sums import GradientSums

distributed.BUCKET = 300  # bytes: a layer or two
ranks, begun, of = join_ranks(), [], Sum.of
torch.manual_seed(0)
layers = [nn.Linear(8, 8) for _ in range(6)]
network = nn.Sequential(*layers)
layers[1].requires_grad_(False)
layers[2].unused = nn.Parameter(torch.ones(3))  # of no loss: it has no gradient
alone = nn.Linear(8, 8)  # reached on the first process alone
network.append(alone)
Sum.of = lambda tensors: (begun.append(within), of(tensors))[1]


def gradients(sums, watching):
    global within
    network.zero_grad()
    for micro in range(2):
        # The last backward pass reaches other layers on each process, and on none all of them.
        taken = [one for n, one in enumerate(layers) if not micro or n != 3 + ranks.rank]
        taken += [alone] if ranks.first else []
        loss = nn.Sequential(*taken)(torch.arange(16.0).view(2, 8) * (ranks.rank + 1) + micro).square().mean()
        if micro and watching:
            sums.watch(loss)
        within = True
        loss.backward()
        within = False
    sums.end()
    return [p.grad for p in network.parameters() if p.grad is not None]


for sharing in (False, True):
    if sharing:  # of two parameters in one memory: nothing begins early
        layers[5].bias = nn.Parameter(layers[4].bias.data)
    sums = GradientSums(ranks, network)
    for _ in range(2):
        after, beside = gradients(sums, False), gradients(sums, True)
        assert len(after) == 12
        both = [torch.zeros_like(alone.weight) for _ in range(2)]
        torch.distributed.all_gather(both, alone.weight.grad)
        assert torch.equal(*both) and both[0].any()
        assert all(torch.equal(*pair) for pair in zip(after, beside, strict=True))
        assert layers[2].unused.grad is None
        assert len(begun) == 2 * len(sums.buckets) > 6, begun
        assert not any(begun[: len(sums.buckets)])
        assert any(begun) == (not sharing), begun
        begun.clear()
leave_ranks()
os._exit(0)  # as commands do: gloo's threads may abort a process that Python takes apart
"""


def test_sums_begin_in_the_last_backward_pass(tmp_path):
    """They are those of sums at the end, whatever a process's last backward pass reaches, and no process hangs."""
    (tmp_path / "sums.py").write_text(SUMS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(tmp_path / "sums.py")], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_processes_share_a_search(worked, autoslim_json):
    settings = ("search", "--flops", "60%,30%", "-r", worked, "search.strategy=exact", "search.draw=anew")
    settings += ("search.images=100", "search.batch=50", "search.fill=0.98", "search.memory=0.0003")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as torchrun's processes have: BN's statistics are sums over threads
    try:
        alone = autoslim_json(*settings)
    finally:
        torch.set_num_threads(threads)
    log = logged(worked / "search.jsonl")
    configs = [(worked / f"arch-{name}.json").read_bytes() for name in ("60pct", "30pct")]
    done = torchrun(2, *settings, "--json")
    assert done.returncode == 0, done.stderr
    together = json.loads(done.stdout)  # one object: the later ranks say nothing
    assert [c["loss"] for c in together["configs"]] == [c["loss"] for c in alone["configs"]]
    assert together["evaluations"] == alone["evaluations"]
    assert logged(worked / "search.jsonl") == log
    assert [(worked / f"arch-{name}.json").read_bytes() for name in ("60pct", "30pct")] == configs
    assert "Traceback" not in done.stderr
    assert done.stderr.count("images at a time, not 50") == 1  # what memory holds is agreed, and said once
    # Killed halfway, they go on from the first rank's log.
    lines = (worked / "search.jsonl").read_text().splitlines(keepends=True)
    (worked / "search.jsonl").write_text("".join(lines[: len(lines) // 2]))
    assert torchrun(2, *settings, "--resume").returncode == 0
    assert [(worked / f"arch-{name}.json").read_bytes() for name in ("60pct", "30pct")] == configs


@pytest.fixture
def one_thread():
    """Compute with one thread, as torchrun's processes do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_three_processes_train_what_one_does(without_norms, tmp_path, autoslim_json, one_thread):
    """Without BN nothing depends on who computes which image: sums differ by their order alone."""
    recipe = without_norms
    alone = shutil.copytree(recipe, tmp_path / "alone")
    settings = ("train.batch=64", "train.lr=0.05", "data.augment.color_jitter=0.2")  # 21, 21 and 22 images
    done = torchrun(3, "train-supernet", "-r", recipe, *settings, "--json")
    assert done.returncode == 0, done.stderr
    together = json.loads(done.stdout)  # one object: the other processes print nothing
    expected = autoslim_json("train-supernet", "-r", alone, *settings)
    assert_close(recipe / "supernet.safetensors", alone / "supernet.safetensors", rtol=1e-3, atol=1e-5)
    for name, row in expected["widths"].items():
        assert together["widths"][name] == pytest.approx(row, rel=1e-3)
    assert not (recipe / "supernet.resume.pt").exists()


def test_two_machines_train_what_one_process_does(without_norms, tmp_path, autoslim_json, one_thread):
    """Each has a torchrun of its own, which meet at an address; what they share is a directory."""
    alone = shutil.copytree(without_norms, tmp_path / "alone")
    settings = ("train.epochs=1", "train.lr=0.05", "--json")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = f"localhost:{free.getsockname()[1]}"
    machine = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    machine += ["--rdzv-backend=c10d", f"--rdzv-endpoint={place}", "--rdzv-id=job", "-m", "autoslim_cli"]
    command = [*machine, "train-supernet", "-r", str(without_norms), *settings]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    (result,) = [out for out, _ in said if out]
    autoslim_json("train-supernet", "-r", alone, *settings[:-1])
    assert_close(without_norms / "supernet.safetensors", alone / "supernet.safetensors", rtol=1e-3, atol=1e-5)
    assert json.loads(result)["supernet"] == str(without_norms / "supernet.safetensors")


def test_each_process_draws_sub_networks_of_its_own(without_norms, tmp_path, autoslim_json, one_thread, monkeypatch):
    """Two processes are one whose second micro-batch of every step draws what the second process draws."""
    alone, same = (shutil.copytree(without_norms, tmp_path / name) for name in ("alone", "same"))
    settings = ("train.epochs=1", "train.lr=0.05", "supernet.draw_per_process=true")
    done = torchrun(2, "train-supernet", "-r", without_norms, *settings, "--json")
    assert done.returncode == 0, done.stderr
    drawn = []

    def in_turns(seed, what, number):
        drawn.append(number)
        return python_random(seed, what, number, *((1,) if len(drawn) % 2 == 0 else ()))

    monkeypatch.setattr("autoslim_cli.training.sandwich.python_random", in_turns)
    parts = ("train.micro_batch=32", *settings)
    autoslim_json("train-supernet", "-r", alone, *parts)
    assert drawn == [step for step in range(len(drawn) // 2) for _ in range(2)]
    supernet = without_norms / "supernet.safetensors"
    assert_close(supernet, alone / "supernet.safetensors", rtol=1e-3, atol=1e-5)
    monkeypatch.undo()  # one process alone draws what the first of many does, whatever the setting
    autoslim_json("train-supernet", "-r", same, *parts)
    with pytest.raises(AssertionError):
        assert_close(supernet, same / "supernet.safetensors", rtol=1e-3, atol=1e-5)


def test_two_processes_do_all_stages(recipe, tmp_path, autoslim_json, one_thread):
    """With BN two processes are one that takes its batches in two parts: each part has its own statistics."""
    alone = shutil.copytree(recipe, tmp_path / "alone")
    base = ("base={epochs: 1, batch: 64, calibrate: true}", "supernet.sort=false")  # importances differ by rounding
    settings = ("--flops", "50%", "retrain.calibrate=true", "retrain.epochs=1", *base)
    done = torchrun(2, "run", "-r", recipe, *settings, "--json")
    assert done.returncode == 0, done.stderr
    together = json.loads(done.stdout)
    parts = ("base.micro_batch=32", "train.micro_batch=32", "retrain.micro_batch=32")
    expected = autoslim_json("run", "-r", alone, *settings, *parts)
    for name in ("model-base", "supernet", "model-50pct", "subnet-50pct"):
        assert_close(recipe / f"{name}.safetensors", alone / f"{name}.safetensors", rtol=1e-2, atol=1e-3)
    for row, other in zip(together["networks"], expected["networks"], strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-2)
    assert done.stderr.count("retraining 50pct") == 1
    # Any number of processes measures the same, to the last bit.
    model = recipe / "model-50pct.safetensors"
    done = torchrun(2, "evaluate", model, "evaluate.batch=100", "--json")
    assert json.loads(done.stdout) == autoslim_json("evaluate", model, "evaluate.batch=100")


def test_two_processes_train_jointly(worked, tmp_path, autoslim_json, one_thread):
    alone = shutil.copytree(worked, tmp_path / "alone")
    settings = ("arch-60pct.json", "arch-30pct.json", "--joint", "retrain.epochs=1", "retrain.calibrate=true")
    together = torchrun(2, "retrain", *(worked / name for name in settings[:2]), *settings[2:], "--json")
    assert together.returncode == 0, together.stderr
    parts = (*(alone / name for name in settings[:2]), *settings[2:], "retrain.micro_batch=32")
    expected = autoslim_json("retrain", *parts)["networks"]
    for row, other in zip(json.loads(together.stdout)["networks"], expected, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-2)
    for name in ("model-60pct-joint.safetensors", "model-30pct-joint.safetensors"):
        assert_close(worked / name, alone / name, rtol=1e-2, atol=1e-3)


def test_a_process_that_dies_ends_the_job_in_one_line(recipe, tmp_path, autoslim):
    """What it had saved another number of processes goes on from."""
    settings = ("-r", recipe, "train.epochs=4", "train.save_steps=1", "train.lr=0.01")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "autoslim_cli", "train-supernet", *map(str, settings)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    state = recipe / "supernet.resume.pt"
    deadline = time.monotonic() + 90
    while not state.exists():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(rank_of(running.pid, 1), signal.SIGKILL)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 1
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "another process of this torchrun job has gone" in lines[0]
    assert "Traceback" not in said.split("torch/distributed")[0]
    assert "resuming after step" in autoslim("train-supernet", *settings, "--resume").stderr
    assert not state.exists()
    assert (recipe / "supernet.safetensors").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_waits_for_others_to_join_can_be_ended(recipe, number):
    """Python hears no signal while PyTorch waits; torchrun would wait half a minute, and then kill."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "autoslim_cli", "train-supernet", "-r", str(recipe)]
    running = subprocess.Popen(command, env={**os.environ, **place}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 90
    while True:  # until it listens for the other one, which never comes
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            break
    time.sleep(1)
    running.send_signal(number)
    try:
        _, said = running.communicate(timeout=20)
    finally:
        running.kill()
    assert running.returncode == -number
    assert b"Traceback" not in said


def rank_of(parent, rank):
    """Return the process of a rank among the children of torchrun."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if f"\0RANK={rank}\0".encode() in b"\0" + Path(f"/proc/{child}/environ").read_bytes():
            return int(child)
    raise AssertionError("no such process")


@pytest.mark.parametrize(
    ("environment", "alone"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "here"}, False),
        ({"WORLD_SIZE": "2"}, True),  # a cluster manager's, not torchrun's
        ({"RANK": "1"}, True),
    ],
)
def test_other_commands_run_alone(refuse, autoslim_json, worked, monkeypatch, environment, alone):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(worked.parent)
    if alone:
        assert autoslim_json("evaluate", worked / "model-60pct.safetensors")["top1"] > 0
    else:
        assert "has no work to share" in refuse(2, "units", "-r", worked)
        assert "recipes copy digits" in refuse(2, "search", "--flops", "50%", "-r", "digits")
