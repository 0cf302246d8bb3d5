"""The two equalities and the count, on real architectures.

Supernet at full width = plain network; supernet at random channels = extracted network (logits, 1e-5, eval mode);
closed-form FLOPs and parameters = fvcore's and the network's own, to the unit.
"""

import copy
import random

import pytest
import torch
import torchvision
from conftest import randomise_norms

from autoslim_cli.cost import closed_form
from autoslim_cli.cost.fvcore_count import fvcore_flops
from autoslim_cli.network.rebuild import fresh
from autoslim_cli.network.trace import read
from autoslim_cli.slimming.candidate import CURRENT, Candidate
from autoslim_cli.slimming.forks import ForkedEvaluator
from autoslim_cli.slimming.space import Space
from autoslim_cli.slimming.supernet import Supernet

SHAPE = (3, 64, 64)
FREE_UNITS = {
    "mobilenet_v2": 25,
    "mobilenet_v3_small": 27,
    "mnasnet1_0": 25,
    "resnet18": 12,
    "resnet50": 37,
    "vgg11_bn": 10,
    "densenet121": 120,
    "squeezenet1_1": 25,
    "efficientnet_b0": 40,
    "regnet_y_400mf": 37,
    "resnext50_32x4d": 21,
}
GOLDEN_FLOPS = {"mobilenet_v2": 300_774_272, "resnet50": 4_089_184_256, "mnasnet1_0": 314_415_872}


def opened(name):
    extra = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    network = torchvision.models.get_model(name, num_classes=10, **extra)
    if name == "vgg11_bn":  # 102 million weights in one layer: the same structure, a tenth of the size
        network.classifier[0] = torch.nn.Linear(25088, 256)
        network.classifier[3] = torch.nn.Linear(256, 256)
        network.classifier[6] = torch.nn.Linear(256, 10)
    randomise_norms(network)
    reading = read(network, SHAPE)
    space = Space.of(reading.table, width=1.5, min_width=0.15, groups=12, divisor=8)
    return network, reading, space


@pytest.mark.parametrize("name", FREE_UNITS)
def test_equalities_and_counts(name):
    network, reading, space = opened(name)
    table = reading.table
    assert len(list(table.free)) == FREE_UNITS[name]
    assert table.notes == ()
    images = torch.randn(2, *SHAPE)

    # 1. At full width, base and widened, the supernet is the plain network.
    for channels in (table.base, space.largest):
        plain = fresh(network, table, channels)
        randomise_norms(plain)
        supernet = Supernet(copy.deepcopy(plain), reading, channels)
        same_logits(supernet, plain, images)

    # 2. At random channels it is the extracted network, whose cost is the closed form's and fvcore's.
    for seed in (1, 2):
        channels = space.random(random.Random(seed))
        extracted = supernet.extract(channels)
        supernet.activate(channels)
        same_logits(supernet, extracted, images)
        assert closed_form.flops(table, channels) == fvcore_flops(extracted, SHAPE)
        assert closed_form.params(table, channels) == sum(p.numel() for p in extracted.parameters())


def same_logits(one, other, images):
    with torch.inference_mode():
        expected = other.eval()(images)
        torch.testing.assert_close(one.eval()(images), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", GOLDEN_FLOPS)
def test_flops_at_224_are_the_literature_s(name):
    table = read(torchvision.models.get_model(name), (3, 224, 224)).table
    assert closed_form.flops(table, table.base) == GOLDEN_FLOPS[name]


FORKED = ["mobilenet_v2", "mobilenet_v3_small", "resnet18", "densenet121", "squeezenet1_1"]
FORKED += ["shufflenet_v2_x1_0", "googlenet", "regnet_y_400mf"]


@pytest.mark.parametrize("name", FORKED)
def test_forked_evaluation_gives_the_logits_of_whole_forward_passes(name):
    """Whatever a candidate changes: one unit smaller or larger, or a group moved. In double precision: a slip shows."""
    network, reading, space = opened(name)
    supernet = Supernet(fresh(network, reading.table, space.largest).double(), reading, space.largest).eval()
    channels = space.random(random.Random(3), low=0.5)
    rng = random.Random(4)
    fewer = [Candidate.of({unit: count}) for unit in space.units if (count := space.slimmed(channels, unit))]
    more = [Candidate.of({unit: count}) for unit in space.units if (count := space.grown(channels, unit))]
    pairs = zip(rng.sample(fewer, 6), rng.sample(more, 6), strict=True)
    moves = [Candidate(one.changes + other.changes) for one, other in pairs if one.units != other.units]
    options = [CURRENT, *rng.sample(fewer, 6), *rng.sample(more, 3), *moves[:3]]
    evaluator = ForkedEvaluator(supernet)
    images = torch.randn(4, *SHAPE, dtype=torch.float64)
    forked = dict(evaluator.forked_logits(images, channels, options))
    assert set(forked) == set(options)
    for option, logits in forked.items():
        whole = evaluator.logits(images, option.applied(channels))
        torch.testing.assert_close(logits, whole, rtol=1e-9, atol=1e-9 * float(whole.abs().max()))
    assert not torch.equal(*list(forked.values())[:2])


class Streams(torch.nn.Module):
    """Two long branches side by side, and an argument that no caller gives."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3)
        blocks = [
            m
            for _ in range(150)
            for m in (torch.nn.Conv2d(8, 8, 1, bias=False), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
        ]
        self.one, self.other = (
            torch.nn.Sequential(*blocks[: len(blocks) // 2]),
            torch.nn.Sequential(*blocks[len(blocks) // 2 :]),
        )
        self.fc = torch.nn.Linear(8, 10)

    def forward(self, x, temperature=2.0):
        x = self.stem(x)
        return self.fc((self.one(x) + self.other(x)).mean((2, 3))) / temperature


def test_long_branches_side_by_side():
    reading = read(Streams(), SHAPE)
    space = Space.of(reading.table, width=1.5, min_width=0.5, groups=4, divisor=2)
    # In double precision: 150 layers amplify what single precision rounds.
    body = fresh(reading.module, reading.table, space.largest).double()
    supernet = Supernet(body, reading, space.largest)
    evaluator = ForkedEvaluator(supernet)
    images = torch.randn(4, *SHAPE, dtype=torch.float64)
    first = next(row.name for row in reading.table.rows if row.name.startswith("one"))
    option = Candidate.of({first: space.slimmed(space.largest, first)})
    evaluator.multiply_adds = 0
    ((_, logits),) = evaluator.forked_logits(images, space.largest, [option])
    # One layer is done twice, whole and less: a candidate's score must not depend on what is scored beside it.
    twice = max(row.flops(space.largest) for row in reading.table.rows if row.name.startswith("one"))
    assert evaluator.multiply_adds / len(images) <= closed_form.flops(reading.table, space.largest) + twice
    whole = evaluator.logits(images, option.applied(space.largest))
    torch.testing.assert_close(logits, whole, rtol=1e-9, atol=1e-9 * float(whole.abs().max()))
    # A fork holds the other branch's values beside its own: what is measured is more than a pass holds.
    alone = evaluator.peak_bytes(images, space.largest, [CURRENT])
    assert evaluator.peak_bytes(images, space.largest, [option]) > 3 * alone


def test_forked_evaluation_does_no_work_twice():
    network, reading, space = opened("resnet18")
    supernet = Supernet(fresh(network, reading.table, space.largest), reading, space.largest)
    evaluator = ForkedEvaluator(supernet)
    images, channels = torch.randn(4, *SHAPE), space.largest

    def work(*options):
        evaluator.multiply_adds = 0
        for _ in evaluator.forked_logits(images, channels, options):
            pass
        return evaluator.multiply_adds / len(images)

    whole = closed_form.flops(reading.table, channels)
    assert work(CURRENT) == whole
    assert evaluator.work(CURRENT, channels) == (whole, 0)
    # The shortcut of a block does not depend on the channels inside it: a fork there runs it no second time.
    rows = {row.name: row for row in reading.table.rows}
    inner = Candidate.of({"layer4.0.conv1": space.slimmed(channels, "layer4.0.conv1")})
    changed = inner.applied(channels)
    expected = sum(rows[name].flops(changed) for name in ["layer4.1.conv1", "layer4.1.conv2", "fc"])
    # The first layer after the fork is the shared pass's own, less what the channels that go add to it.
    expected += rows["layer4.0.conv2"].flops(channels) - rows["layer4.0.conv2"].flops(changed)
    assert work(CURRENT, inner) == whole + expected
    assert evaluator.work(inner, channels)[1] == expected


def test_batch_statistics_are_those_of_the_extracted_network_in_training_mode():
    network, reading, space = opened("resnet18")
    supernet = Supernet(fresh(network, reading.table, space.largest), reading, space.largest)
    channels = space.random(random.Random(5))
    images = torch.randn(8, *SHAPE)
    logits = ForkedEvaluator(supernet).logits(images, channels)
    with torch.no_grad():
        expected = supernet.extract(channels).train()(images)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
