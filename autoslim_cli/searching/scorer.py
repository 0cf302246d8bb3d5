"""Score candidates on holdout images: BN in each batch's own statistics, dropout off."""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from autoslim_cli.data.batch import Batch, tensors
from autoslim_cli.data.sets import Images
from autoslim_cli.errors import AutoslimError
from autoslim_cli.network.table import Channels
from autoslim_cli.recipe.schema import SearchSettings
from autoslim_cli.searching.problem import SCREEN, WHOLE
from autoslim_cli.seeds import generator
from autoslim_cli.slimming.candidate import Candidate
from autoslim_cli.slimming.forks import ForkedEvaluator
from autoslim_cli.training.distributed import Ranks
from autoslim_cli.training.score import Score
from autoslim_cli.training.task import Task

LEAST_IMAGES = 2
"""Of a score: BN takes its statistics from them, and of one image a map of one pixel has none."""

MEASURED = 16
"""Most candidates whose memory is measured before a search."""

MARGIN = 1.5
"""What libraries take beside the live tensors of a scoring, as a factor."""


class Scorer:
    """Score candidates on draws of the holdout, sharing them out among the ranks of a job.

    The draw WHOLE is all images that scores may use, SCREEN the first of them; with `search.draw: fixed` the others are
    WHOLE. `most` bounds the images in one forward: a draw falls into as few equal batches as that allows, each with its
    own BN statistics.
    """

    def __init__(
        self,
        evaluator: ForkedEvaluator,
        holdout: Images,
        settings: SearchSettings,
        *,
        task: Task,
        seed: int,
        ranks: Ranks,
        most: int,
    ) -> None:
        self.evaluator, self.settings, self.task = evaluator, settings, task
        self.seed, self.ranks, self.most = seed, ranks, most
        self.anew = settings.draw == "anew"
        self.whole = even(holdout if self.anew else holdout.take(settings.images or len(holdout)), most)
        if self.anew:
            self.whole = Even(self.whole.images.in_memory(), self.whole.batch)
        screened = max(
            LEAST_IMAGES, round(settings.screen * (settings.images if settings.images and self.anew else self.images))
        )
        self.kept = {WHOLE: self.whole, SCREEN: even(self.whole.images.take(screened), most)}
        self.drawn = (WHOLE, self.whole)
        self.loaded: dict[int, list[Batch]] = {}

    @property
    def device(self) -> torch.device:
        """Return where images are scored."""
        return self.whole.images.device

    @property
    def images(self) -> int:
        """Return how many images the score of an answer is measured on."""
        return len(self.whole.images)

    def images_of(self, draw: int) -> int:
        """Return how many images a draw has."""
        return len(self._draw(draw).images)

    def draw_of(self, draw: int) -> int:
        """Return the draw whose images a draw has: with `search.draw: fixed`, WHOLE for any but SCREEN."""
        return draw if self.anew or draw == SCREEN else WHOLE

    def _draw(self, draw: int) -> "Even":
        """Return the images of a draw."""
        if (draw := self.draw_of(draw)) in self.kept:
            return self.kept[draw]
        if self.drawn[0] != draw:
            order = torch.randperm(self.images, generator=generator(self.seed, "draw", draw))
            self.drawn = draw, even(self.whole.images.select(order[: self.settings.images]), self.most)
        return self.drawn[1]

    def _batches(self, draw: int) -> Iterable[Batch]:
        """Return the batches of a draw; where draws are fixed, they are loaded once."""
        draw = self.draw_of(draw)
        if self.anew:
            return self._draw(draw).batches()
        if draw not in self.loaded:
            self.loaded[draw] = list(self._draw(draw).batches())
        return self.loaded[draw]

    def score(self, channels: Channels, candidates: Sequence[Candidate], draw: int) -> dict[Candidate, Score]:
        """Return each candidate's loss and score: one shared forward pass per batch, forked at the cuts.

        Every rank returns all scores. Raises AutoslimError on a loss that no working network has.
        """
        mine = share(self.evaluator, channels, candidates, self.ranks)
        sums = self._sums(channels, mine, draw) if mine else {}
        count = self.images_of(draw)
        gathered = {c: sums for part in self.ranks.gather(sums, "scores of candidates") for c, sums in part.items()}
        scores = {c: self.task.scored(gathered[c], count) for c in candidates}
        if broken := [score for score in scores.values() if not score.possible]:
            raise AutoslimError(
                f"the supernet's loss on the holdout is {broken[0].loss:g}: it is not finite, or beyond all use; "
                + (
                    "train it again with a lower train.lr"
                    if self.settings.precision != "fp16"
                    else "half precision may overflow: try search.precision=bf16 or fp32"
                )
            )
        return scores

    def _sums(self, channels: Channels, candidates: Sequence[Candidate], draw: int) -> dict[Candidate, list[float]]:
        """Return what scores are computed from. Nothing waits for the device before the end."""
        sums: dict[Candidate, list[Tensor]] = {candidate: [] for candidate in candidates}
        for inputs, targets in self._batches(draw):
            judged_by = self.task.to_network(targets) if self.task.part else None
            with arithmetic(self.settings, self.device):
                for candidate, outputs in self.evaluator.forked_logits(inputs, channels, candidates, judged_by):
                    sums[candidate].append(self.task.sums(outputs, targets))
        values = iter(torch.cat([one for candidate in candidates for one in sums[candidate]]).tolist())
        return {
            candidate: self.task.together([list(itertools.islice(values, len(one))) for one in sums[candidate]])
            for candidate in candidates
        }

    def time_a_pass(self, channels: Channels) -> float:
        """Return the seconds of one forward pass over a draw's images, after a warm-up on one batch."""
        batches = [inputs for inputs, _ in self._batches(1)]
        with arithmetic(self.settings, self.device):
            waited_for(self.evaluator.logits(batches[0], channels))
            started = time.monotonic()
            for inputs in batches:
                waited_for(self.evaluator.logits(inputs, channels))
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


def waited_for(outputs: object) -> None:
    """Wait until outputs are there: on a GPU a value of them is what the host waits for."""
    for tensor in tensors(outputs):
        tensor.sum().item()


def arithmetic(settings: SearchSettings, device: torch.device) -> AbstractContextManager[object]:
    """Return the context that forward passes run in."""
    if settings.precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, {"bf16": torch.bfloat16, "fp16": torch.float16}[settings.precision])


def most_images(
    evaluator: ForkedEvaluator, holdout: Images, settings: SearchSettings, largest: Channels, slimmer: list[Candidate]
) -> int:
    """Return the most images of one forward: `search.batch`, or what the memory for activations holds, if that is less.

    What a scoring holds is measured on two images, at the supernet's largest channels, where it is most, for candidates
    all along the network. Raises AutoslimError if the memory does not hold two images.
    """
    inputs, _ = next(iter(holdout.take(2).evaluation(2)))
    some = slimmer[:: -(-len(slimmer) // MEASURED)]
    with arithmetic(settings, holdout.device):
        each = MARGIN * evaluator.peak_bytes(inputs, largest, some)
    memory = settings.memory * 2**30
    most = min(settings.batch, int(memory / each))
    if most < 2:
        raise AutoslimError(
            f"search.memory: {settings.memory:.3g} GiB for activations do not hold two images of "
            f"{each / 2**30:.3g} GiB each; give it more, or lower model.input"
        )
    return most


@dataclass(frozen=True)
class Even:
    """Images in batches of equal size."""

    images: Images
    batch: int

    def batches(self) -> Iterator[Batch]:
        """Yield the batches."""
        return self.images.evaluation(self.batch)


def even(images: Images, most: int) -> Even:
    """Return images in as few equal batches of `most` or fewer as there can be; it leaves out a few.

    None is of one image: BN takes its statistics from what is scored together.
    """
    count = min(-(-len(images) // most), max(1, len(images) // LEAST_IMAGES))
    batch = min(most, len(images) // count)
    return Even(images.take(count * batch), batch)
