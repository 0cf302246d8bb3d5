"""Two processes share a search and find what one finds; both are real processes over gloo."""

import json
import subprocess
import sys

import pytest


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


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_a_search(worked, autoslim_json, count):
    settings = ("search", "--flops", "60%,30%", "-r", worked, "search.strategy=exact", "search.draw=anew")
    settings += ("search.images=100", "search.batch=50", "search.backfill=true")
    alone = autoslim_json(*settings)
    log = logged(worked / "search.jsonl")
    configs = [(worked / f"arch-{name}.json").read_bytes() for name in ("60pct", "30pct")]
    done = torchrun(count, *settings, "--json")
    assert done.returncode == 0, done.stderr
    together = json.loads(done.stdout)  # one object: the later ranks say nothing
    assert [c["loss"] for c in together["configs"]] == [c["loss"] for c in alone["configs"]]
    assert together["evaluations"] == alone["evaluations"]
    assert logged(worked / "search.jsonl") == log
    assert [(worked / f"arch-{name}.json").read_bytes() for name in ("60pct", "30pct")] == configs
    assert "Traceback" not in done.stderr


def test_other_commands_run_alone(worked):
    done = torchrun(2, "train-supernet", "-r", worked)
    assert done.returncode != 0
    assert "only `autoslim search` shares its work" in done.stderr
