"""What a network computes in place: said without doing it, or refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autoslim_cli.errors import UsageError
from autoslim_cli.network.rebuild import fresh
from autoslim_cli.network.trace import read
from autoslim_cli.slimming.candidate import CURRENT, Candidate
from autoslim_cli.slimming.forks import ForkedEvaluator
from autoslim_cli.slimming.space import Space
from autoslim_cli.slimming.supernet import Supernet

SHAPE = (3, 8, 8)


class Tail(nn.Module):
    """Layers for a test's forward between a stem and a classifier; in double precision a slip shows."""

    def __init__(self, middle):
        super().__init__()
        self.middle = middle
        self.stem, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.same, self.drop, self.act = nn.Identity(), nn.Dropout(0.5), nn.SiLU(inplace=True)
        self.odd = LeakyConv(8, 8, 1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(self.middle(self, self.stem(x)).mean([2, 3]))


class LeakyConv(nn.Conv2d):
    """A layer that changes its input in place, where no graph shows it."""

    def forward(self, x):
        return super().forward(F.leaky_relu(x, 0.1, inplace=True))


def network_of(middle):
    torch.manual_seed(0)
    network = Tail(middle).eval()
    used = {name for name in ("b", "c", "odd") if f"self.{name}(" in SOURCES[middle]}
    for name in {"b", "c", "odd"} - used:
        delattr(network, name)
    return network


def through(name):
    def middle(self, x):
        short = getattr(self, name)(x)
        return self.b(self.act(x)) + short

    return middle


def renamed(self, x):
    y = x
    y += 1
    return self.b(x) + y


def early(self, x):
    old = x
    x += self.b(x)
    return self.c(x * old)


def halves(self, x):
    one, other = self.b(x).chunk(2, 1)
    one.mul_(2)
    return self.c(torch.cat([one, other], 1))


def branches(self, x):
    other = torch.relu_(self.c(F.elu_(x.clone())))
    return F.silu(self.b(x), True) + other


def sizes(self, x):
    height = x.shape[2]
    height //= 2
    height *= 2
    return self.b(x).reshape(x.shape[0], -1, height, x.shape[3])


def viewed(self, x):
    flat = x.flatten(2)
    self.act(flat)
    return self.b(x)


def part(self, x):
    one, _ = x.chunk(2, 1)
    one.mul_(2)
    return self.b(x)


def hidden(self, x):
    return self.odd(x)


def out(self, x):
    torch.add(x, 1, out=x)
    return self.b(x)


identity, dropout = through("same"), through("drop")
RIGHT = {identity: "self.b(", dropout: "self.b(", renamed: "self.b(", early: "self.b( self.c("}
RIGHT |= {halves: "self.b( self.c(", branches: "self.b( self.c(", sizes: "self.b("}
REFUSED = {
    viewed: "act changes in place what the code reads as stem",
    part: "mul_ changes in place",
    hidden: "odd works in place",
    out: "add works in place",
}
SOURCES = {**RIGHT, viewed: "self.b(", part: "self.b(", hidden: "self.odd(", out: "self.b("}


@pytest.mark.parametrize("middle", RIGHT)
def test_the_graph_says_what_the_code_does(middle):
    network = network_of(middle)
    reading = read(network, SHAPE)
    images = torch.randn(2, *SHAPE, dtype=torch.float64)
    space = Space.of(reading.table, width=1.0, min_width=0.25, groups=4, divisor=1)
    supernet = Supernet(fresh(network, reading.table, space.largest).double(), reading, space.largest).eval()
    evaluator = ForkedEvaluator(supernet)
    supernet.activate(space.largest)
    with torch.inference_mode():
        whole = supernet(images)
    torch.testing.assert_close(evaluator.logits(images, space.largest), whole, rtol=1e-12, atol=1e-12)
    # So do forks, all of them from tensors that they share.
    candidates = [Candidate.of({u: count}) for u in space.units if (count := space.slimmed(space.largest, u))]
    for candidate, logits in evaluator.forked_logits(images, space.largest, [CURRENT, *candidates]):
        alone = evaluator.logits(images, candidate.applied(space.largest))
        torch.testing.assert_close(logits, alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("middle", "words"), REFUSED.items())
def test_what_cannot_be_said_is_refused(middle, words):
    with pytest.raises(UsageError, match=words) as error:
        read(network_of(middle), SHAPE)
    assert "\n" not in str(error.value)
