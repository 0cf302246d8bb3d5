"""The built-in networks, operations beyond torchvision's common ones, and the published channel lists."""

import copy
import random

import pytest
import torch
from conftest import randomise_norms
from torch import nn

from autoslim_cli.cost import closed_form
from autoslim_cli.cost.budget import short
from autoslim_cli.cost.fvcore_count import agree, fvcore_flops
from autoslim_cli.files.channel_config import read_config
from autoslim_cli.models.built_in import FACTORIES, cifar_vgg
from autoslim_cli.models.zoo import build
from autoslim_cli.network.rebuild import fresh
from autoslim_cli.network.trace import read
from autoslim_cli.recipe import catalogue
from autoslim_cli.slimming.candidate import Candidate
from autoslim_cli.slimming.forks import ForkedEvaluator
from autoslim_cli.slimming.space import Space
from autoslim_cli.slimming.supernet import Supernet


class Odds(nn.Module):
    """Operations that each do something of their own to channels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, padding=1, padding_mode="reflect")
        self.norm = nn.GroupNorm(6, 24)
        self.slope = nn.PReLU(24)
        self.scale = nn.Parameter(torch.rand(24, 1, 1) + 0.5)
        self.up = nn.ConvTranspose2d(24, 16, 2, stride=2)
        self.up_depthwise = nn.ConvTranspose2d(16, 16, 2, stride=2, groups=16)
        self.one = nn.GroupNorm(1, 16)
        self.gate = nn.Conv2d(16, 40, 1)
        self.grouped = nn.Conv2d(20, 32, 3, padding=1, groups=2)
        self.last = nn.LayerNorm(32)
        self.mlp = nn.Linear(32, 48)
        self.fc = nn.Linear(48, 10)

    def forward(self, x):
        x = self.slope(self.norm(self.stem(x))) * self.scale
        x = self.one(self.up_depthwise(self.up(x)))
        first, second = self.gate(x).chunk(2, dim=1)  # a gated unit: the convolution's channels fall into two runs
        x = first * torch.sigmoid(second)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, -1, height, width)
        x = self.grouped(x)
        x = self.last(x.permute(0, 2, 3, 1))  # channels last, as in ConvNeXt
        x = self.mlp(x).softmax(-1)
        return self.fc(x.mean(axis=(1, 2)))


class Ghost(nn.Module):
    """Half of a layer's channels, and a depthwise layer's of these: GhostNet's, cut to a number in the code."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.outputs = outputs
        self.primary, self.norm = nn.Conv2d(inputs, outputs // 2, 1, bias=False), nn.BatchNorm2d(outputs // 2)
        self.cheap = nn.Conv2d(outputs // 2, outputs // 2, 3, padding=1, groups=outputs // 2)

    def forward(self, x):
        first = torch.relu(self.norm(self.primary(x)))
        return torch.cat([first, self.cheap(first)], 1)[:, : self.outputs, :, :]


class Ghosts(nn.Module):
    """Ghost modules in a bottleneck with a shortcut."""

    def __init__(self):
        super().__init__()
        self.stem, self.expand, self.project = nn.Conv2d(3, 16, 3, 2, 1), Ghost(16, 48), Ghost(48, 16)
        self.head, self.fc = nn.Conv2d(16, 40, 1), nn.Linear(40, 10)

    def forward(self, x):
        x = self.stem(x)
        x = self.project(self.expand(x)) + x
        return self.fc(torch.relu(self.head(x)).mean((2, 3)))


class Named(nn.Module):
    """Modules and a parameter with names that torch.fx's own modules use."""

    def __init__(self):
        super().__init__()
        self.meta = nn.Conv2d(3, 16, 3, padding=1)
        self.graph = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU())
        self.code = nn.Conv2d(16, 24, 3)
        self.print_readable = nn.Parameter(torch.rand(24, 1, 1) + 0.5)
        self.recompile = nn.Linear(24, 10)

    def forward(self, x):
        return self.recompile((self.code(self.graph(self.meta(x))) * self.print_readable).mean((2, 3)))


FREE = {
    "named": 2,
    "ghosts": 3,
    "odds": 5,
    "conv_blocks": 4,
    "cifar_vgg": 4,
    "cifar_resnet": 12,
    "resnet9": 6,
    "mobilenet_v1": 14,
    "shufflenet_v1": 16,
}
NETWORKS = {
    **{name: FACTORIES[name] for name in FREE if name in FACTORIES},
    "named": lambda num_classes: Named(),
    "odds": lambda num_classes: Odds(),
    "ghosts": lambda num_classes: Ghosts(),
    "cifar_vgg": lambda num_classes: cifar_vgg(num_classes, layers=(16, "M", 24, 24, "M", 32)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_equalities_counts_and_forks(name):
    shape = (3, 64, 64) if name != "odds" else (3, 8, 8)
    network = NETWORKS[name](num_classes=10)
    randomise_norms(network)
    reading = read(network, shape)
    table = reading.table
    assert len(list(table.free)) == FREE[name], [(u.name, u.pinned) for u in table.units]
    assert table.notes == ()
    space = Space.of(table, width=1.5, min_width=0.25, groups=8, divisor=2)
    images = torch.randn(4, *shape)
    same(Supernet(copy.deepcopy(network), reading, table.base), network, images)
    plain = fresh(network, table, space.largest)
    randomise_norms(plain)
    supernet = Supernet(copy.deepcopy(plain), reading, space.largest)
    same(supernet, plain, images)
    for seed in (1, 2, 3):
        channels = space.random(random.Random(seed))
        extracted = supernet.extract(channels)
        supernet.activate(channels)
        same(supernet, extracted, images)
        assert closed_form.flops(table, channels) == fvcore_flops(extracted, shape)
        assert closed_form.params(table, channels) == sum(p.numel() for p in extracted.parameters())
    options = [Candidate.of({unit: count}) for unit in space.units if (count := space.slimmed(space.largest, unit))]
    evaluator = ForkedEvaluator(supernet)
    for option, logits in evaluator.forked_logits(images, space.largest, options):
        whole = evaluator.logits(images, option.applied(space.largest))
        torch.testing.assert_close(logits, whole, rtol=1e-4, atol=1e-4 * float(whole.abs().max()))


def test_vgg_16_has_the_flops_that_are_published_of_it():
    assert fvcore_flops(cifar_vgg(10), (3, 32, 32)) == 313_201_664  # Li et al. 2017, table 1: 3.13e8


@pytest.mark.parametrize("layers", [[], ["M", 8], [8, "m"], [8, 0], [8] * 65, [8, 2.5], [True]])
def test_layers_that_no_vgg_has(layers):
    with pytest.raises(ValueError, match="layers must be"):
        cifar_vgg(10, layers=layers)


class Volumes(nn.Module):
    """Convolutions over one and three dimensions."""

    def __init__(self, convolution, norm):
        super().__init__()
        self.a, self.norm = convolution(2, 8, 3, padding=1), norm(8)
        self.b = convolution(8, 8, 3, padding=1, groups=8)
        self.c = convolution(8, 12, 1, stride=2)
        self.fc = nn.Linear(12, 5)

    def forward(self, x):
        return self.fc(self.c(self.b(self.norm(self.a(x)).relu())).flatten(2).mean(2))


@pytest.mark.parametrize(
    ("convolution", "norm", "shape"),
    [(nn.Conv1d, nn.BatchNorm1d, (2, 16)), (nn.Conv3d, nn.BatchNorm3d, (2, 4, 6, 6))],
)
def test_one_and_three_dimensions(convolution, norm, shape):
    network = Volumes(convolution, norm)
    randomise_norms(network)
    reading = read(network, shape)
    table = reading.table
    assert [unit.name for unit in table.free] == ["a", "c"]
    supernet = Supernet(copy.deepcopy(network), reading, table.base)
    channels = {"a": 5, "c": 7, "fc": 5}
    extracted = supernet.extract(channels)
    supernet.activate(channels)
    same(supernet, extracted, torch.randn(2, *shape))
    assert closed_form.flops(table, channels) == fvcore_flops(extracted, shape)


def same(one, other, images):
    with torch.inference_mode():
        expected = other.eval()(images)
        torch.testing.assert_close(one.eval()(images), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("name", "flops"), [("mobilenet_v1", 568_740_352), ("shufflenet_v1", 137_460_672), ("cifar_resnet", None)]
)
def test_flops_of_the_built_in_networks(name, flops):
    table = read(FACTORIES[name](num_classes=1000), (3, 224, 224)).table
    if flops:
        assert closed_form.flops(table, table.base) == flops
    small = read(FACTORIES[name](num_classes=10, **({"depth": 20} if not flops else {"width_mult": 0.5})), (3, 32, 32))
    assert closed_form.flops(small.table, small.table.base) == fvcore_flops(small.module, (3, 32, 32))


def test_mobilenet_v1_is_the_authors():
    network = FACTORIES["mobilenet_v1"](num_classes=1000, width_mult=0.35)
    kinds = [type(m) for m in network.modules() if not list(m.children())]
    assert kinds.count(nn.ReLU6) == 27
    assert nn.ReLU not in kinds
    assert network.features[0][0].out_channels == 16  # 0.35 * 32 = 11.2: 8 would be more than a tenth less
    assert 0.0095 < float(network.classifier.weight.detach().std()) < 0.0105


PUBLISHED = sorted(path for recipe in catalogue.shipped().values() for path in recipe.glob("published/*.json"))
READ = {}


def test_all_published_channel_lists_ship():
    assert len(PUBLISHED) == 13


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_published_channels_have_the_published_flops(path):
    config = read_config(path)
    if config.model.name not in READ:
        READ[config.model.name] = read(build(config.model), config.model.input)
    reading = READ[config.model.name]
    space = Space.of(reading.table, width=1.0, min_width=0.5, groups=1, divisor=1)
    channels = space.check(config.channels, str(path), bounded=False)
    fine = Space.of(reading.table, width=2.0, min_width=0.01, groups=10_000, divisor=8)
    assert all(channels[name] in unit.counts for name, unit in fine.units.items())
    network = fresh(reading.module, reading.table, channels)
    counted = agree(network, reading, channels)
    published = path.stem.removeprefix("autoslim-")
    digits = len(published.rstrip("MG").replace(".", ""))
    assert counted == config.cost.flops
    assert float(f"{counted:.{digits}g}") == float(published[:-1]) * {"M": 1e6, "G": 1e9}[published[-1]], short(counted)
