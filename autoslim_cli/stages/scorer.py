"""Score candidates on holdout images: BN in each batch's own statistics, dropout off."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from autoslim_cli.errors import AutoslimError
from autoslim_cli.files.recipe import SearchSettings
from autoslim_cli.network.candidate import Candidate
from autoslim_cli.network.forked import ForkedEvaluator
from autoslim_cli.network.table import Channels
from autoslim_cli.strategies.problem import WHOLE
from autoslim_cli.training.data import Images
from autoslim_cli.training.distributed import Ranks
from autoslim_cli.training.measure import sum_of
from autoslim_cli.training.runtime import free_memory, generator
from autoslim_cli.training.score import Score
from autoslim_cli.training.sources import Batch

PASSES = 2.5
"""Forward passes whose live tensors are held at a time: the shared one, a fork, and what libraries take besides."""


class Scorer:
    """Score candidates on draws of the holdout, sharing them out among the ranks of a job.

    The draw WHOLE is all images that scores may use; with `search.draw: fixed` the others are the same. `batch` is the
    number of images in one forward: BN's statistics are theirs.
    """

    def __init__(
        self,
        evaluator: ForkedEvaluator,
        holdout: Images,
        settings: SearchSettings,
        *,
        seed: int,
        ranks: Ranks,
        batch: int,
    ) -> None:
        self.evaluator, self.settings, self.seed, self.ranks, self.batch = evaluator, settings, seed, ranks, batch
        self.anew = settings.draw == "anew" and settings.images is not None and settings.images < len(holdout)
        self.holdout = _equal_batches(holdout if self.anew else holdout.first(settings.images or len(holdout)), batch)
        if self.anew:
            self.holdout = self.holdout.held()
        self.fixed = [] if self.anew else list(self.holdout.evaluation(batch))
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[settings.precision]

    @property
    def images(self) -> int:
        """Return how many images the score of an answer is measured on."""
        return len(self.holdout)

    def images_of(self, draw: int) -> int:
        """Return how many images a draw has."""
        return len(self._drawn(draw))

    def _drawn(self, draw: int) -> Images:
        """Return the images of a draw."""
        if draw == WHOLE or not self.anew:
            return self.holdout
        order = torch.randperm(len(self.holdout), generator=generator(self.seed, "draw", draw))
        return _equal_batches(self.holdout.only(order[: self.settings.images]), self.batch)

    def _batches(self, draw: int) -> Iterator[Batch]:
        """Yield the batches of a draw."""
        yield from self.fixed or self._drawn(draw).evaluation(min(self.batch, self.images_of(draw)))

    def score(self, channels: Channels, candidates: Sequence[Candidate], draw: int) -> dict[Candidate, Score]:
        """Return each candidate's loss and top-1: one shared forward pass per batch, forked at the cuts.

        Every rank returns all scores. Raises AutoslimError on a loss that is not finite.
        """
        mine = share(self.evaluator, channels, candidates, self.ranks)
        sums = self._sums(channels, mine, draw) if mine else {}
        count = self.images_of(draw)
        scores = {c: s for part in self.ranks.gather(sums) for c, s in part.items()}
        scores = {c: Score(scores[c].loss / count, scores[c].top1 / count) for c in candidates}
        if not all(abs(score.loss) < float("inf") for score in scores.values()):
            raise AutoslimError(
                "the supernet's loss on the holdout is not finite; train it again with a lower train.lr"
            )
        return scores

    def _sums(self, channels: Channels, candidates: Sequence[Candidate], draw: int) -> dict[Candidate, Score]:
        """Return sums of losses and hits. Nothing waits for the device before the end."""
        losses: dict[Candidate, Any] = dict.fromkeys(candidates, 0.0)
        hits: dict[Candidate, Any] = dict.fromkeys(candidates, 0)
        for images, labels in self._batches(draw):
            with torch.autocast(images.device.type, self.dtype, enabled=self.settings.precision != "fp32"):
                for candidate, logits in self.evaluator.forked_logits(images, channels, candidates):
                    losses[candidate] += sum_of(F.cross_entropy(logits.float(), labels, reduction="none"))
                    hits[candidate] += (logits.argmax(1) == labels).sum()
        return {c: Score(float(losses[c]), int(hits[c])) for c in candidates}

    def time_a_pass(self, channels: Channels) -> float:
        """Return the seconds of one forward pass over a draw's images, after a warm-up on one batch."""
        batches = list(self._batches(1))
        self.evaluator.logits(batches[0][0], channels).sum().item()
        started = time.monotonic()
        for images, _ in batches:
            with torch.autocast(images.device.type, self.dtype, enabled=self.settings.precision != "fp32"):
                self.evaluator.logits(images, channels).sum().item()
        return time.monotonic() - started


def share(
    evaluator: ForkedEvaluator, channels: Channels, candidates: Sequence[Candidate], ranks: Ranks
) -> list[Candidate]:
    """Return the candidates that this rank scores: a run of them in the order of their cuts, of about equal work.

    A rank pays the shared pass up to its last cut, and what its candidates compute themselves.
    """
    if ranks.size == 1:
        return list(candidates)
    work = {c: evaluator.work(c, channels) for c in candidates}
    ordered = sorted(candidates, key=lambda c: work[c][0])
    low, high = 0, sum(sum(pair) for pair in work.values())
    while low < high:  # the least bound within which all candidates fit into as many runs as there are ranks
        bound = (low + high) // 2
        low, high = (low, bound) if len(_runs(ordered, work, bound)) <= ranks.size else (bound + 1, high)
    runs = _runs(ordered, work, high)
    return runs[ranks.rank] if ranks.rank < len(runs) else []


def _runs(ordered: Sequence[Candidate], work: dict[Candidate, tuple[int, int]], bound: int) -> list[list[Candidate]]:
    """Cut candidates into runs whose work is within a bound, where one candidate's is."""
    runs: list[list[Candidate]] = []
    own = 0
    for candidate in ordered:
        shared, alone = work[candidate]
        if not runs or shared + own + alone > bound:
            runs.append([])
            own = 0
        runs[-1].append(candidate)
        own += alone
    return runs if all(sum(work[c]) <= bound for c in ordered) else [*runs, *([[]] * len(ordered))]


def fitting_batch(evaluator: ForkedEvaluator, holdout: Images, settings: SearchSettings, channels: Channels) -> int:
    """Return the images of one forward: `search.batch`, or what the memory for activations holds, if that is less."""
    wanted = min(settings.batch, settings.images or len(holdout), len(holdout))
    images, _ = next(iter(holdout.first(min(wanted, 4)).evaluation(4)))
    memory = settings.memory * 2**30 if settings.memory else free_memory(images.device) / 2
    most = max(1, int(memory / (PASSES * evaluator.peak_bytes(images, channels))))
    return wanted if wanted <= most else -(-wanted // -(-wanted // most))


def _equal_batches(images: Images, batch: int) -> Images:
    """Drop the images that do not fill a batch."""
    return images.first(max(len(images) // batch, 1) * batch)
