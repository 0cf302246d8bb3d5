"""Scores of candidates: what they depend on, and what they make a device wait for."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from autoslim_cli.data.opening import open_source
from autoslim_cli.data.sets import split_holdout
from autoslim_cli.models.built_in import cifar_resnet
from autoslim_cli.network.rebuild import fresh
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.schema import DataSettings, ModelSettings, SearchSettings
from autoslim_cli.searching.problem import SCREEN
from autoslim_cli.searching.scorer import Scorer
from autoslim_cli.slimming.candidate import CURRENT, Candidate
from autoslim_cli.slimming.forks import ForkedEvaluator
from autoslim_cli.slimming.space import Space
from autoslim_cli.slimming.supernet import Supernet
from autoslim_cli.training.distributed import Ranks
from autoslim_cli.training.tasks import classification

SHAPE = (1, 16, 16)


@pytest.fixture(scope="module")
def supernet():
    torch.manual_seed(0)
    reading = read(cifar_resnet(10, depth=8, width=16, in_channels=1), SHAPE)
    space = Space.of(reading.table, width=1.5, min_width=0.25, groups=10, divisor=2)
    return Supernet(fresh(reading.module, reading.table, space.largest), reading, space.largest), space


@pytest.fixture
def score(supernet, tmp_path):
    """Return a function that scores candidates of the largest channels anew."""
    body, space = supernet
    model = ModelSettings(name="autoslim/cifar_resnet", input=SHAPE, classes=10)
    settings = DataSettings(name="digits", holdout=96)
    cpu = torch.device("cpu")
    source = open_source("train", settings, model, 0, tmp_path, cpu)
    _, holdout = split_holdout(source, settings, model, 0, cpu)

    def run(candidates, draw_of=1, **changes):
        settings, task = SearchSettings(**changes), classification(10)
        scorer = Scorer(ForkedEvaluator(body), holdout, settings, task=task, seed=0, ranks=Ranks(), most=48)
        assert scorer.images_of(draw_of) > 1
        return scorer.score(space.largest, candidates, draw_of)

    return run


def slimmer(space):
    return [Candidate.of({unit: count}) for unit in space.units if (count := space.slimmed(space.largest, unit))]


def test_a_score_does_not_depend_on_what_is_scored_beside_it(supernet, score):
    """To the last bit: ranks of a job share candidates out, and a search goes on from a log of another company."""
    candidates = [CURRENT, *slimmer(supernet[1])]
    together = score(candidates)
    assert len({one.loss for one in together.values()}) > 6
    for candidate in candidates:
        assert score([candidate]) == {candidate: together[candidate]}


def test_two_images_are_screened_at_least(supernet, score):
    """BN takes its statistics from what is scored: of a single image, maps of one pixel have none."""
    _, space = supernet
    scores = score([CURRENT, *slimmer(space)], images=4, draw_of=SCREEN)
    assert all(one.possible for one in scores.values())


class Reads(TorchDispatchMode):
    """Count the operations that make the host wait for a value."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    @property
    def values(self):
        return sum(self.seen[name] for name in ("item", "_local_scalar_dense", "nonzero", "is_nonzero", "equal"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nothing_waits_for_a_candidate(supernet, score, precision):
    candidates = slimmer(supernet[1])
    with Reads() as few:
        score(candidates[:1], precision=precision)
    with Reads() as many:
        score(candidates, precision=precision)
    assert many.seen["conv2d"] > few.seen["conv2d"] > 0
    assert many.values == few.values
    with torch.inference_mode(), Reads() as one:
        bool(torch.ones(1) > 0)
    assert one.values > 0


def test_half_precision_sums_losses_in_full(supernet, score):
    candidates = slimmer(supernet[1])
    whole, half = score(candidates), score(candidates, precision="bf16")
    for candidate in candidates:
        assert half[candidate].loss != whole[candidate].loss
        assert half[candidate].loss == pytest.approx(whole[candidate].loss, rel=0.02)
        assert half[candidate].loss != float(torch.tensor(half[candidate].loss, dtype=torch.bfloat16))
