"""Ask whether evolution from the search's answer finds better channels: judged on other images, supernets, by training.

For each seed and budget: the search's answer; the answer of a population that starts from it, mutates one to three
units by quanta, fills the budget again and keeps the best; and the best of as many mutants of the answer without
selection. All are scored on one half of the holdout, then judged on the other half, on the holdouts of the other seeds'
supernets, and after fine-tuning from the supernet.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from commands import autoslim
from plan import RESULTS, Chosen, add_row, find, rows_of

ROWS = RESULTS.parent / "trials" / "evolution.jsonl"
EVALUATIONS = 400
"""Channels that are scored for each answer, beside the search's own."""
PARENTS = 8
"""Channels that are kept for the next generation."""
CHILDREN = 16
"""Mutants in a generation."""
REACH = 0.3
"""The largest change of a unit in a mutation, as a share of its count."""


class Judge:
    """A supernet and the two halves of its holdout."""

    def __init__(self, directory: Path) -> None:
        from autoslim_cli.cli.options import open_recipe
        from autoslim_cli.slimming.forks import ForkedEvaluator
        from autoslim_cli.stages.project import load_supernet

        self.project = open_recipe(str(directory), ())
        self.evaluator = ForkedEvaluator(load_supernet(self.project))
        holdout = self.project.images.holdout
        half = len(holdout) // 2
        self.searched = self.scorer(holdout.take(half))
        self.fresh = self.scorer(holdout.select(holdout.indices[half:]))
        self.whole = self.scorer(holdout)

    def scorer(self, images: Any) -> Any:
        """Return what scores channels on some images."""
        from autoslim_cli.searching.scorer import Scorer
        from autoslim_cli.training.distributed import Ranks

        recipe, task = self.project.recipe, self.project.task
        return Scorer(
            self.evaluator, images, recipe.search, task=task, seed=recipe.seed, ranks=Ranks(), most=recipe.search.batch
        )


def loss_of(scorer: Any, channels: dict[str, int]) -> float:
    """Return the loss at some channels."""
    from autoslim_cli.searching.problem import WHOLE
    from autoslim_cli.slimming.candidate import CURRENT

    return float(scorer.score(channels, [CURRENT], WHOLE)[CURRENT].loss)


def problem_of(judge: Judge, limit: int) -> Any:
    """Return the search's problem at a budget of FLOPs."""
    from autoslim_cli.cost.budget import Bound, Budget
    from autoslim_cli.searching import Problem

    budget = Budget((Bound("flops", str(limit), limit),))
    recipe, network = judge.project.recipe, judge.project.network
    return Problem(network.space, judge.project.costs, (budget,), recipe.search, recipe.seed)


def mutant(problem: Any, channels: dict[str, int], rng: Random) -> dict[str, int]:
    """Return channels of which some units differ, within the budget and filling it."""
    (budget,) = problem.budgets
    free = [name for name, unit in problem.space.units.items() if len(unit.counts) > 1]
    changed = dict(channels)
    for name in rng.sample(free, min(len(free), rng.randint(1, 3))):
        unit = problem.space.units[name]
        most = max(1, round(REACH * changed[name] / unit.quantum))
        moved = problem.space.moved(changed, name, rng.choice((-1, 1)) * rng.randint(1, most))
        changed[name] = changed[name] if moved is None else moved
    while not problem.fits(budget, changed):
        name = rng.choice(free)
        less = problem.space.moved(changed, name, -1)
        changed[name] = changed[name] if less is None else less
    while problem.used(budget, changed) < problem.settings.fill and (more := problem.fillers(budget, changed)):
        changed = rng.choice(more).applied(changed)
    return changed


def evolved(problem: Any, scorer: Any, start: dict[str, int], rng: Random, *, select: bool) -> dict[str, int]:
    """Return the best channels of a population that starts from some; without `select` all are mutants of the start."""
    scored = {tuple(start.values()): (loss_of(scorer, start), start)}
    while len(scored) <= EVALUATIONS:
        best = sorted(scored.values(), key=lambda pair: pair[0])[:PARENTS]
        for _ in range(CHILDREN):
            child = mutant(problem, rng.choice(best)[1] if select else start, rng)
            if tuple(child.values()) not in scored:
                scored[tuple(child.values())] = (loss_of(scorer, child), child)
    return min(scored.values(), key=lambda pair: pair[0])[1]


def candidates(problem: Any, judge: Judge, start: dict[str, int], seed: int) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield what is compared."""
    yield "search", start
    yield "evolution", evolved(problem, judge.searched, start, Random(seed), select=True)
    yield "mutants", evolved(problem, judge.searched, start, Random(seed), select=False)


def evolution(chosen: Chosen) -> None:
    """Make the rows that are missing."""
    judges = {seed: Judge(chosen.place(seed, "warm")) for seed in chosen.seeds}
    for seed, judge in judges.items():
        for share in chosen.base.shares:
            key = {"base": chosen.name, "seed": seed, "share": share, "evaluations": EVALUATIONS}
            found = find(rows_of(chosen.file("found")), seed=seed, source="warm", share=share)
            if found is None or find(rows_of(ROWS), **key, who="mutants"):
                continue
            problem = problem_of(judge, found["budget"])
            # The search saw the whole holdout: it is repeated on the half that evolution sees.
            start = searched(chosen, seed, found["budget"])
            for who, channels in candidates(problem, judge, start, seed):
                others = {n: loss_of(other.whole, channels) for n, other in judges.items() if n != seed}
                row = {
                    **{**key, "who": who, "flops": judge.project.costs["flops"](channels)},
                    **{"searched_loss": loss_of(judge.searched, channels), "other_losses": others},
                    **{"fresh_loss": loss_of(judge.fresh, channels), "channels": channels},
                }
                add_row(ROWS, {**row, "top1": trained(chosen, seed, share, who, found["arch"], channels)})


def searched(chosen: Chosen, seed: int, limit: int) -> dict[str, int]:
    """Return the channels of the default search on half of the holdout."""
    half = f"search.images={chosen.base.holdout // 2}"
    result = autoslim("search", "-r", chosen.place(seed, "warm"), "--flops", limit, half)
    channels: dict[str, int] = json.loads(Path(result["configs"][0]["path"]).read_text())["channels"]
    return channels


def trained(chosen: Chosen, seed: int, share: int, who: str, like: str, channels: dict[str, int]) -> float:
    """Fine-tune a network from the supernet; return its test top-1. `like` is a channel config of the same model."""
    directory = chosen.place(seed, "warm")
    arch = directory / f"{who}-{share}.json"
    config = json.loads(Path(like).read_text())
    arch.write_text(json.dumps({"format": config["format"], "model": config["model"], "channels": channels}))
    options = [
        "-r",
        directory,
        "--name",
        f"{who}-{share}",
        "--from",
        "supernet",
        f"retrain.epochs={chosen.base.epochs}",
    ]
    return float(autoslim("retrain", arch, *options, "--resume")["top1"])
