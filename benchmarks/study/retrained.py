"""Train found, uniform and random networks from scratch, several times each."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from found import Bench
from plan import OWN, RANDOM, RETRAINED, TRAININGS, add_row, found_rows, open_seed, rows_of


class Job(NamedTuple):
    """A network of a seed's supernet, at a share of the base network's FLOPs, and the seed that it is trained from."""

    name: str
    share: int
    channels: str
    """As JSON."""
    training: int


def retrain(
    seeds: Sequence[int], variants: Sequence[str], shares: Sequence[int], shard: int, shards: int, other: str = OWN
) -> None:
    """Train the jobs that have no result yet, and score their networks by the supernet."""
    from autoslim_cli.stages.retrain import retrain as stage

    benches = {seed: Bench(seed) for seed in seeds}
    jobs = [(seed, job) for seed in seeds for job in jobs_of(seed, variants, shares, other)]
    jobs.sort(key=lambda one: (one[1].training // 10, -one[1].share, one[1].name not in RETRAINED))
    for seed, job in jobs[shard::shards]:
        done = {
            (row["share"], json.dumps(row["channels"]), row["training"]) for row in rows_of(seed, "retrained.jsonl")
        }
        if job[1:] in done:
            continue
        project = open_seed(seed, training=job.training)
        name = f"study-{job.name}-{job.share}-{job.training}"
        channels = json.loads(job.channels)
        result = stage(project, name, channels, resume=True)
        figures = {"flops": result["flops"], "params": result["params"], "test_top1": result["top1"]}
        row = {"network": job.name, "share": job.share, "training": job.training, "channels": channels, **figures}
        judged = benches[seed].judge(channels)
        add_row(seed, "retrained.jsonl", {**row, "test_loss": result["loss"], "supernet": judged})


def jobs_of(seed: int, variants: Sequence[str], shares: Sequence[int], other: str) -> list[Job]:
    """Return what is trained for a seed, no network twice from one seed."""
    found = {(row["variant"], row["share"]): row["channels"] for row in found_rows(seed, other)}
    jobs: dict[Any, Job] = {}
    for run in range(TRAININGS):
        for share in shares:
            for name in (name for name in RETRAINED if name in variants and (name, share) in found):
                job = Job(name, share, json.dumps(found[name, share]), seed + 10 * run)
                jobs.setdefault(job[1:], job)
    for share in shares if seed == 0 and "random" in variants else ():
        for number, channels in enumerate(random_channels(seed, share)):
            job = Job(f"random {number}", share, json.dumps(channels), seed)
            jobs.setdefault(job[1:], job)
    return list(jobs.values())


def random_channels(seed: int, share: int) -> list[dict[str, int]]:
    """Return random channels at a share of the base network's FLOPs."""
    from autoslim_cli.cost.budget import Bound, Budget
    from autoslim_cli.recipe.schema import SearchSettings
    from autoslim_cli.searching.problem import Problem
    from autoslim_cli.searching.sampling import draw

    project = open_seed(seed)
    limit = project.costs["flops"](project.network.base) * share // 100
    budget = Budget((Bound("flops", f"{share}%", limit),))
    problem = Problem(project.network.space, project.costs, (budget,), SearchSettings(), seed)
    return [draw(problem, budget, 1000 + number) for number in range(RANDOM)]
