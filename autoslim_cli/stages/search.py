"""Slim the supernet greedily until each budget holds (AutoSlim, section 3.2)."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch.nn.functional as F

from autoslim_cli.cost.budget import Budget, short
from autoslim_cli.errors import ArtifactError, AutoslimError, BudgetError, UsageError
from autoslim_cli.files.atomic import sha256, write_text
from autoslim_cli.files.channel_config import Found, Holdout, write_config
from autoslim_cli.files.checkpoint import versions
from autoslim_cli.network.forked import Candidate, ForkedEvaluator
from autoslim_cli.network.space import Space
from autoslim_cli.stages.currency import decisive
from autoslim_cli.stages.workshop import SUPERNET_FILE, Workshop
from autoslim_cli.training.measure import Score, sum_of
from autoslim_cli.training.sources import Batch

LOG_FILE = "search.jsonl"
FORMAT = "autoslim.search/1"


@dataclass(frozen=True)
class SlimmingStep:
    """One unit lost one group: a line of search.jsonl. Loss and top-1 are the holdout's after the step."""

    step: int
    unit: str
    before: int
    after: int
    flops: int
    params: int
    loss: float
    top1: float
    evaluations: int
    seconds: float

    def words(self) -> str:
        """Say where the step led."""
        return f"{short(self.flops)} FLOPs  loss {self.loss:.3f}  top-1 {self.top1:.1%}"


@dataclass
class SearchResult:
    """What a search found."""

    configs: list[dict[str, Any]] = field(default_factory=list)
    evaluations: int = 0
    seconds: float = 0.0


def search(shop: Workshop, budgets: list[Budget], *, resume: bool = False) -> SearchResult:
    """Write `arch-<budget>.json` for every budget, largest first, in one greedy pass.

    Raises BudgetError with the reachable range if a budget is out of reach.
    """
    space, settings = shop.space, shop.recipe.search
    if shop.switches:
        raise UsageError("supernet.bn: switchable has weights for its switches alone; a search needs bn: shared")
    check_reach(shop, budgets)
    supernet = shop.load_supernet()
    scorer = Scorer(ForkedEvaluator(supernet), _batches(shop), settings.score)
    log = SearchLog(shop.path(LOG_FILE), _header(shop, scorer.images))
    past = log.replay() if resume else log.start()
    _say_plan(shop, scorer, budgets[-1], len(past))
    first_cost = shop.flops(space.largest)
    result, waiting, channels = SearchResult(), list(budgets), space.largest
    with shop.reporter.bar("slimming", first_cost - budgets[-1].flops) as bar:
        for step in _steps(shop, scorer, log, past):
            # A step that was logged before is replayed; a new one was just decided.
            channels = {**channels, step.unit: step.after}
            result.evaluations += step.evaluations
            result.seconds += step.seconds
            while waiting and step.flops <= waiting[0].flops:
                result.configs.append(_write(shop, waiting.pop(0), channels, step, log))
            bar(first_cost - step.flops, step.words)
            if not waiting:
                break
    return result


def _steps(shop: Workshop, scorer: "Scorer", log: "SearchLog", past: list[SlimmingStep]) -> Iterator[SlimmingStep]:
    """Yield the slimming steps: first those that the log holds, then new ones, each logged as it is decided."""
    channels = shop.space.largest
    for step in past:
        channels = {**channels, step.unit: step.after}
        yield step
    number = len(past)
    while candidates := slimmer(shop.space, channels):
        # 1. Score every candidate on the same images.
        started = time.monotonic()
        scores = scorer.score(channels, candidates)
        # 2. Slim the unit that harms least.
        best = min(candidates, key=lambda candidate: scorer.harm(scores[candidate]))
        before, channels = channels[best.unit], {**channels, best.unit: best.count}
        # 3. Log it before anything builds on it.
        number += 1
        step = SlimmingStep(
            step=number,
            unit=best.unit,
            before=before,
            after=best.count,
            flops=shop.flops(channels),
            params=shop.params(channels),
            loss=scores[best].loss,
            top1=scores[best].top1,
            evaluations=len(candidates),
            seconds=round(time.monotonic() - started, 3),
        )
        log.append(step)
        yield step


def slimmer(space: Space, channels: dict[str, int]) -> list[Candidate]:
    """Return the candidates of one slimming step: every unit that can still lose a group."""
    options = ((name, space.slimmed(channels, name)) for name in space.units)
    return [Candidate(name, count) for name, count in options if count is not None]


class Scorer:
    """Score candidates on fixed holdout images: BN in the batch's own statistics, dropout off."""

    def __init__(self, evaluator: ForkedEvaluator, batches: list[Batch], by: str) -> None:
        self.evaluator, self.batches, self.by = evaluator, batches, by
        self.images = sum(len(labels) for _, labels in batches)

    def score(self, channels: dict[str, int], candidates: list[Candidate]) -> dict[Candidate, Score]:
        """Return each candidate's loss and top-1: one shared forward pass per batch, forked at the cuts."""
        losses: dict[Candidate, Any] = dict.fromkeys(candidates, 0.0)
        hits: dict[Candidate, Any] = dict.fromkeys(candidates, 0)
        for images, labels in self.batches:
            for candidate, logits in self.evaluator.forked_logits(images, channels, candidates):
                losses[candidate] += sum_of(F.cross_entropy(logits.float(), labels, reduction="none"))
                hits[candidate] += (logits.argmax(1) == labels).sum()
        scores = {c: Score(float(losses[c]) / self.images, int(hits[c]) / self.images) for c in candidates}
        if not all(abs(score.loss) < float("inf") for score in scores.values()):
            raise AutoslimError(
                "the supernet's loss on the holdout is not finite; train it again with a lower train.lr"
            )
        return scores

    def harm(self, score: Score) -> tuple[float, float]:
        """Return what the least harmful candidate has least of."""
        return (score.loss, -score.top1) if self.by == "loss" else (-score.top1, score.loss)

    def seconds_per_flop(self, channels: dict[str, int], flops: int) -> float:
        """Time one pass over the images at `channels`, after a warm-up on one batch."""
        self.evaluator.logits(self.batches[0][0], channels).sum().item()
        started = time.monotonic()
        for images, _ in self.batches:
            self.evaluator.logits(images, channels).sum().item()
        return (time.monotonic() - started) / flops


class SearchLog:
    """Keep search.jsonl: a header that says what was searched, then one line per slimming step."""

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path, self.header = path, header

    def start(self) -> list[SlimmingStep]:
        """Begin a new log."""
        write_text(self.path, json.dumps(self.header) + "\n")
        return []

    def replay(self) -> list[SlimmingStep]:
        """Return the logged steps, dropping a line that a kill cut short; begin anew without a log.

        Raises ArtifactError if the log is of another supernet, holdout or space.
        """
        if not self.path.exists():
            return self.start()
        lines = self.path.read_text(errors="replace").split("\n")
        rows = []
        for place, line in enumerate(lines[:-1]):  # the last piece has no newline: empty, or cut short
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                raise ArtifactError(
                    f"{self.path}: line {place + 1} is damaged; search again without --resume"
                ) from None
        if not rows or decisive(rows[0]) != decisive(self.header):
            raise ArtifactError(
                f"{self.path}: logs a search of another supernet, holdout or space; search anew without --resume"
            )
        try:
            steps = [SlimmingStep(**row) for row in rows[1:]]
        except TypeError:
            raise ArtifactError(f"{self.path}: holds lines that are no steps; search again without --resume") from None
        if lines[-1]:
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        return steps

    def append(self, step: SlimmingStep) -> None:
        """Add one line and flush it to disk."""
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(step)) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _header(shop: Workshop, images: int) -> dict[str, Any]:
    """Return what determines the path of a search."""
    return {
        "format": FORMAT,
        "versions": versions(),
        "supernet": sha256(shop.path(SUPERNET_FILE)),
        "recipe": {"seed": shop.recipe.seed, **shop.recipe.sections("model", "data", "space", "search")},
        "holdout": images,
        "largest": {"flops": shop.flops(shop.space.largest), "channels": shop.space.largest},
    }


def _batches(shop: Workshop) -> list[Batch]:
    """Return the holdout images of every score, in batches of equal size, on the device."""
    settings = shop.recipe.search
    images = shop.holdout.first(settings.images or len(shop.holdout))
    batch = min(settings.batch, len(images))
    return list(images.first(len(images) // batch * batch).evaluation(batch))


def check_reach(shop: Workshop, budgets: list[Budget]) -> None:
    """Refuse a budget that no channels of the space meet, or that all do."""
    low, high = shop.flops(shop.space.smallest), shop.flops(shop.space.largest)
    for budget in budgets:
        if not low <= budget.flops < high:
            raise BudgetError(
                f"--flops {budget.text} ({budget.flops}) is out of reach: this supernet goes from {low} "
                f"({short(low)}) to {high} ({short(high)}) FLOPs; change the budget, or supernet.width and "
                "supernet.min_width"
            )


def _say_plan(shop: Workshop, scorer: Scorer, last: Budget, done: int) -> None:
    """Say what the search is about to do, and how long that takes by one timed pass."""
    space, say = shop.space, shop.reporter.say
    low, high = shop.flops(space.smallest), shop.flops(space.largest)
    free = sum(len(unit.counts) > 1 for unit in space.units.values())
    say(f"space: {free} units, 10^{space.log10_size:.0f} networks, {short(low)} to {short(high)} FLOPs")
    steps, evaluations, work = _foresee(shop, scorer.evaluator, last.flops)
    rate = scorer.seconds_per_flop(space.largest, high)
    seconds = work * rate * max(0.0, 1 - done / max(steps, 1))
    resumed = f", {done} of them done" if done else ""
    say(
        f"about {steps} steps{resumed}, {evaluations} evaluations on {scorer.images} holdout images, "
        f"about {_words(seconds)} (one pass of the supernet took {rate * high:.2f} s)"
    )


def _foresee(shop: Workshop, evaluator: ForkedEvaluator, limit: int) -> tuple[int, int, float]:
    """Return steps, evaluations and multiply-adds per image of a search that slims all units alike."""
    space = shop.space
    place = {str(node.target): i for i, node in enumerate(evaluator.nodes) if node.op == "call_module"}
    channels, steps, evaluations, work = space.largest, 0, 0, 0.0
    while shop.flops(channels) > limit and (candidates := slimmer(space, channels)):
        costs = [(place[row.name], row.flops(channels)) for row in shop.reading.table.rows]
        cuts = [evaluator.fork_place(candidate.unit) for candidate in candidates]
        work += sum(cost for cut in [0, *cuts] for at, cost in costs if at >= cut)
        widest = max(candidates, key=lambda c: channels[c.unit] / space.units[c.unit].largest)
        channels = {**channels, widest.unit: widest.count}
        steps, evaluations = steps + 1, evaluations + len(candidates)
    return steps, evaluations, work


def _write(
    shop: Workshop, budget: Budget, channels: dict[str, int], step: SlimmingStep, log: SearchLog
) -> dict[str, Any]:
    """Write the channel config of a budget that now holds."""
    path = shop.path(f"arch-{budget.label}.json")
    found = Found(
        budget=str(budget),
        holdout=Holdout(images=log.header["holdout"], seed=shop.recipe.seed),
        loss=step.loss,
        top1=step.top1,
        step=step.step,
        supernet=log.header["supernet"],
    )
    write_config(path, shop.config(channels, found=found))
    shop.reporter.say(
        f"{path}: {short(step.flops)} FLOPs, {short(step.params)} parameters, holdout loss {step.loss:.4f}, "
        f"top-1 {step.top1:.1%} after {step.step} steps"
    )
    figures = {"flops": step.flops, "params": step.params, "loss": step.loss, "top1": step.top1}
    return {"path": str(path), "budget": str(budget), **figures}


def _words(seconds: float) -> str:
    """Write a duration for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
