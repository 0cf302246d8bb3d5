"""Forks of one pass: what may be subtracted, and what is counted."""

from types import MethodType

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autoslim_cli.cost.closed_form import flops
from autoslim_cli.errors import UsageError
from autoslim_cli.network.rebuild import fresh
from autoslim_cli.network.trace import read
from autoslim_cli.slimming.candidate import CURRENT, Candidate
from autoslim_cli.slimming.forks import ForkedEvaluator
from autoslim_cli.slimming.space import Space
from autoslim_cli.slimming.supernet import Supernet

SHAPE = (3, 8, 8)


class Branches(nn.Module):
    """Two branches side by side, and a classifier that has the name of fx's last node."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.a, self.b = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 1)
        self.c, self.d = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 1)
        self.output = nn.Linear(16, 10)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = self.b(torch.relu(self.a(x))) + self.d(torch.relu(self.c(x)))
        return self.output(x.mean((2, 3)))


def evaluator_of(network):
    reading = read(network, SHAPE)
    space = Space.of(reading.table, width=1.0, min_width=0.25, groups=8, divisor=1)
    body = fresh(reading.module, reading.table, space.largest).double()
    supernet = Supernet(body, reading, space.largest).eval()
    candidates = [Candidate.of({u: count}) for u in space.units if (count := space.slimmed(space.largest, u))]
    return ForkedEvaluator(supernet), space.largest, candidates


def before(module, inputs):
    return (torch.tanh(inputs[0]),)


def after(module, inputs, output):
    return torch.relu(output)


def standardised(self, x):
    return F.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


CHANGES = {
    "nothing": lambda layer: None,
    "a hook before it": lambda layer: layer.register_forward_pre_hook(before),
    "a hook behind it": lambda layer: layer.register_forward_hook(after),
    "a forward of its own": lambda layer: setattr(layer, "forward", MethodType(standardised, layer)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_does_more_than_its_weights_say_is_not_subtracted(change):
    network = Branches()
    CHANGES[change](network.b)
    evaluator, channels, candidates = evaluator_of(network)
    assert {str(node.target) for node in evaluator.linear} >= {"a", "c", "d"}
    assert ("b" in {str(node.target) for node in evaluator.linear}) == (change == "nothing")
    images = torch.randn(4, *SHAPE, dtype=torch.float64)
    for candidate, logits in evaluator.forked_logits(images, channels, [CURRENT, *candidates]):
        whole = evaluator.logits(images, candidate.applied(channels))
        torch.testing.assert_close(logits, whole, rtol=1e-12, atol=1e-12)


def test_the_work_foretold_is_the_work_done():
    evaluator, channels, candidates = evaluator_of(Branches())
    images = torch.randn(2, *SHAPE, dtype=torch.float64)
    for candidate in (CURRENT, *candidates):
        evaluator.multiply_adds = 0
        for _ in evaluator.forked_logits(images, channels, [candidate]):
            pass
        assert evaluator.multiply_adds == 2 * sum(evaluator.work(candidate, channels))
    assert sum(evaluator.work(CURRENT, channels)) == flops(evaluator.supernet.reading.table, channels)


def test_pooling_across_channels_is_not_channel_wise():
    class Behind(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.fc = nn.Conv2d(3, 16, 3), nn.Linear(16, 10)

        def forward(self, x):
            x = self.stem(x).flatten(2).transpose(1, 2)
            return self.fc(F.max_pool2d(x.unsqueeze(1), 3, 1, 1).squeeze(1).mean(1))

    (stem, _) = read(Behind(), SHAPE).table.units
    assert "max_pool2d" in stem.pinned


def test_weights_that_are_computed_are_refused_in_one_line():
    network = Branches()
    torch.nn.utils.weight_norm(network.b)
    with pytest.raises(UsageError, match="remove_weight_norm") as error:
        read(network, SHAPE)
    assert "\n" not in str(error.value)
