"""Two processes share a search and find what one finds; both are real processes over gloo."""

import json
import subprocess
import sys

import pytest
import torch


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
        line = refuse(2, "train-supernet", "-r", worked)
        assert "only `autoslim search` shares its work" in line
        assert "recipes copy digits" in refuse(2, "search", "--flops", "50%", "-r", "digits")
