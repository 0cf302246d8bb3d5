"""The equalities and the count on dense networks: other outputs than logits, several inputs, no BN, pixel shuffles."""

import copy
import random
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
import torchvision
from conftest import randomise_norms
from torch import nn
from torch.nn.utils import parametrizations

from autoslim_cli.cost import closed_form
from autoslim_cli.cost.fvcore_count import fvcore_flops
from autoslim_cli.errors import UsageError
from autoslim_cli.models.built_in import FACTORIES
from autoslim_cli.network.rebuild import fresh
from autoslim_cli.network.tensors import tensors_in
from autoslim_cli.network.trace import read
from autoslim_cli.slimming.candidate import Candidate
from autoslim_cli.slimming.forks import ForkedEvaluator
from autoslim_cli.slimming.space import Space
from autoslim_cli.slimming.supernet import Supernet
from autoslim_cli.slimming.trained_weights import sort_channels, widened


def torchvision_s(name, **arguments):
    return torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=5, **arguments)


class TwoInputs(nn.Module):
    """An image and a map of its size, and outputs in a dictionary and a tuple."""

    def __init__(self):
        super().__init__()
        self.image, self.map = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(14)
        self.small, self.large = nn.Conv2d(14, 4, 1, stride=2), nn.Conv2d(14, 2, 1)

    def forward(self, image, map):
        x = self.norm(torch.cat([self.image(image), self.map(map)], 1)).relu()
        return OrderedDict(sizes=(self.small(x), self.large(x)), mean=x.mean((1, 2, 3)))


class Shuffles(nn.Module):
    """Pixels to channels and back, over layers that group channels, double them, or join them."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(12, 16, 3, padding=1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=2)
        self.b = nn.Conv2d(4, 8, 3, padding=1)
        self.twice = nn.Conv2d(8, 16, 1, groups=8)
        self.up = nn.ConvTranspose2d(8, 10, 4, stride=2, padding=1)
        self.c = nn.Conv2d(14, 3, 3, padding=1)

    def forward(self, x):
        x = F.pixel_unshuffle(x, 2)
        x = self.grouped(self.a(x).relu())  # groups of 8: two squares each
        y = F.pixel_shuffle(x, 2)
        z = F.pixel_shuffle(self.twice(self.b(y)).relu(), 2)  # two features a channel, four a square
        z = torch.cat([self.up(self.b(y)), z], 1)
        return self.c(z)


NETWORKS = {
    "unet": (lambda: FACTORIES["unet"](5, width=8, depth=2), [(3, 16, 16)], 12),
    "unet bilinear": (lambda: FACTORIES["unet"](5, width=8, depth=2, bilinear=True), [(3, 18, 14)], 12),
    "edsr": (lambda: FACTORIES["edsr"](scale=4, blocks=2, width=8), [(3, 6, 6)], 5),
    "wdsr": (lambda: FACTORIES["wdsr"](scale=3, blocks=2, width=8), [(3, 6, 6)], 3),
    "deeplabv3": (lambda: torchvision_s("deeplabv3_mobilenet_v3_large", aux_loss=True), [(3, 32, 32)], 37),
    "lraspp": (lambda: torchvision_s("lraspp_mobilenet_v3_large"), [(3, 32, 32)], 30),
    "two inputs": (TwoInputs, [(3, 8, 8), (1, 8, 8)], 2),
    "shuffles": (Shuffles, [(3, 8, 8)], 3),
}


def images_of(shapes, count=2, dtype=torch.float32):
    return tuple(torch.rand(count, *shape, dtype=dtype) for shape in shapes)


def same(one, other, inputs, tolerance=1e-5):
    with torch.inference_mode():
        pairs = zip(tensors_in(one.eval()(*inputs)), tensors_in(other.eval()(*inputs)), strict=True)
        for given, expected in pairs:
            torch.testing.assert_close(given, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


def lively(network):
    """Let every layer matter, also those that a network starts near zero."""
    randomise_norms(network)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("tail.weight", "gain")):
                parameter.uniform_(0.1, 0.5)
    return network


@pytest.mark.parametrize("name", NETWORKS)
def test_equalities_counts_and_forks(name):
    build, shapes, free = NETWORKS[name]
    network = lively(build())
    reading = read(network, *shapes)
    table = reading.table
    assert len(list(table.free)) == free, [(u.name, u.pinned) for u in table.units]
    assert table.notes == ()
    space = Space.of(table, width=1.5, min_width=0.25, groups=8, divisor=2)
    inputs = images_of(shapes)

    # 1. At full width, base and widened, the supernet is the plain network.
    same(Supernet(copy.deepcopy(network), reading, table.base), network, inputs)
    plain = lively(fresh(network, table, space.largest))
    supernet = Supernet(copy.deepcopy(plain), reading, space.largest)
    same(supernet, plain, inputs)

    # 2. At random channels it is the extracted network, whose cost is the closed form's and fvcore's.
    for seed in (1, 2):
        channels = space.random(random.Random(seed))
        extracted = supernet.extract(channels)
        supernet.activate(channels)
        same(supernet, extracted, inputs)
        assert closed_form.flops(table, channels) == fvcore_flops(extracted, *shapes)
        assert closed_form.params(table, channels) == sum(p.numel() for p in extracted.parameters())

    # 3. Whatever a candidate changes, a fork gives what a whole pass gives. In double precision: a slip shows.
    evaluator = ForkedEvaluator(Supernet(plain.double(), reading, space.largest))
    images = images_of(shapes, 2, torch.float64)
    options = [Candidate.of({unit: count}) for unit in space.units if (count := space.slimmed(space.largest, unit))]
    some = random.Random(3).sample(options, min(4, len(options)))
    forked = dict(evaluator.forked_logits(images, space.largest, some))
    assert set(forked) == set(some)
    for option, outputs in forked.items():
        whole = evaluator.logits(images, option.applied(space.largest))
        for given, expected in zip(tensors_in(outputs), tensors_in(whole), strict=True):
            torch.testing.assert_close(given, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["unet", "edsr", "wdsr", "shuffles"])
def test_sorting_and_widening_keep_what_a_trained_network_computes(name):
    build, shapes, _ = NETWORKS[name]
    network = lively(build())
    reading, inputs = read(network, *shapes), images_of(shapes)
    trained = copy.deepcopy(network)
    sort_channels(trained, reading.table)
    same(trained, network, inputs, 1e-4)
    space = Space.of(reading.table, width=1.5, min_width=0.25, groups=8, divisor=2)
    same(widened(trained, reading, space.largest), network, inputs, 1e-4)


def test_channels_that_become_pixels_count_in_squares():
    reading = read(FACTORIES["edsr"](scale=2, blocks=1, width=8), (3, 6, 6))
    assert reading.table.base["up.0"] == 8
    row = reading.table.row("up.0")
    assert [(s.unit, s.base, s.multiplicity) for s in row.outputs] == [("up.0", 32, 4)]
    smaller = fresh(reading.module, reading.table, {**reading.table.base, "up.0": 5})
    assert smaller.up[0].out_channels == 20
    assert smaller.tail.in_channels == 5
    assert smaller(torch.rand(1, 3, 9, 7)).shape == (1, 3, 18, 14)


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, nn.utils.weight_norm, nn.utils.spectral_norm])
def test_weights_that_are_computed_from_others_are_refused_in_one_line(wrap):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), wrap(nn.Conv2d(8, 4, 3)))
    with pytest.raises(UsageError, match=r"^1 computes its weight") as error:
        read(network, (3, 8, 8))
    assert "\n" not in str(error.value)
    assert "take" in str(error.value)


def test_a_bare_network_starts_near_the_bicubic_image():
    images = torch.rand(2, 3, 8, 8)
    bicubic = F.interpolate(images, scale_factor=2, mode="bicubic", align_corners=False)
    for name in ("edsr", "wdsr"):
        assert (FACTORIES[name](blocks=2)(images) - bicubic).abs().max() < 0.05
