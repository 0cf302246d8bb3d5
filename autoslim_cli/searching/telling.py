"""Say where a search is, for people."""

from collections.abc import Sequence
from itertools import pairwise

from autoslim_cli.cost.budget import Budget, short
from autoslim_cli.cost.costs import Costs
from autoslim_cli.files.measures import MEASURES
from autoslim_cli.searching import Problem, Step
from autoslim_cli.training.score import Score


def progress(costs: Costs, step: Step, last: Budget) -> str:
    """Say where a step led, and what is left to slim until the last budget holds."""
    cost = costs(step.channels)
    bound = last.binding(cost)
    kind, left = MEASURES[bound.measure], max(cost[bound.measure] - bound.limit, 0)
    remains = f", {kind.show(left)} {kind.word} left" if step.kind in ("slim", "prune") else ""
    score = step.score
    words = f"loss {score.loss:.3f}  {score.metric.title} {score.text}"
    return f"{short(cost['flops'])} FLOPs{remains}  {words}"


def told(costs: Costs, step: Step, number: int) -> str:
    """Say all of a step: its units, and where it led."""
    changes = ", ".join(f"{unit} {before} to {after}" for unit, before, after in step.changes)
    flops = short(costs["flops"](step.channels))
    return f"step {number}, {step.kind}: {changes or 'all units'}; {flops} FLOPs, {said(step.score)}"


def said(score: Score) -> str:
    """Say a score."""
    return f"loss {score.loss:.4f}, {score.metric.title} {score.text}"


FEW, MOST = 8, 0.75
"""Steps from which on it is said that harms are noise, and the share of them that must be."""


def decided_by_cost(problem: Problem, steps: Sequence[Step]) -> str | None:
    """Say that nearly all steps of a pass changed less than the task calls noise, where cost alone decides."""
    slimming = [step.score for step in steps if step.kind == "slim"]
    noise = problem.noises[0]
    harms = [problem.harm(after, before)[0] for before, after in pairwise(slimming)]
    within = sum(abs(harm) < noise for harm in harms)
    if len(harms) < FEW or within < MOST * len(harms) or not problem.settings.per_flop:
        return None
    return (
        f"{within} of {len(harms)} steps changed less than the {noise:g} that the task calls noise: cost alone chose "
        f"among them; where {problem.settings.score} changes by so little, give the Task a smaller noise"
    )
