"""A supernet whose BN is calibrated in place computes what the extracted, calibrated sub-network computes."""

import copy
import itertools

import pytest
import torch
import torchvision
from conftest import randomise_norms
from mixed_network import MixedNetwork
from torch import nn

from autoslim_cli import SlimmableNetwork, calibrate
from autoslim_cli.errors import UsageError
from autoslim_cli.network.rebuild import fresh
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.schema import ModelSettings
from autoslim_cli.slimming.base_network import BaseNetwork
from autoslim_cli.slimming.space import Space
from autoslim_cli.slimming.supernet import Supernet

WIDTHS = (0.25, 0.5, 1.0, 1.5)


class NormAfterConcat(nn.Module):
    """Two branches of other widths, joined, then normalised: in use, the norm's channels are two runs."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 12, 1)
        self.norm = nn.BatchNorm2d(20)
        self.c = nn.Conv2d(20, 16, 3)
        self.last = nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        x = self.norm(torch.cat([self.a(x), self.b(x)], 1)).relu()
        return self.fc(self.last(self.c(x)).relu().mean((2, 3)))


NETWORKS = {
    "concat": (NormAfterConcat, (3, 8, 8)),
    "densenet": (lambda: torchvision.models.DenseNet(8, (2, 2), 16, num_classes=5), (3, 32, 32)),
    "mixed": (lambda: MixedNetwork(num_classes=5), (1, 28, 28)),
    "squeezenet": (lambda: torchvision.models.squeezenet1_1(num_classes=5), (3, 32, 32)),
}


def opened(name):
    factory, shape = NETWORKS[name]
    reading = read(factory(), shape)
    space = Space.of(reading.table, width=1.5, min_width=0.25, groups=6, divisor=2)
    body = fresh(reading.module, reading.table, space.largest)
    randomise_norms(body)
    model = ModelSettings(name=f"tests/{name}", input=shape)
    base = BaseNetwork(model, "", reading, space, {}, seed=0, device=torch.device("cpu"))
    network = SlimmableNetwork(Supernet(body, reading, space.largest), base, {})
    return network, shape


def close(one, other, images):
    with torch.inference_mode():
        expected = other(images)
        torch.testing.assert_close(one(images), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("first", "then"), itertools.permutations(WIDTHS, 2))
def test_every_pair_of_widths(name, first, then):
    network, shape = opened(name)
    batches = [(torch.randn(8, *shape), torch.zeros(8)) for _ in range(2)]
    images = torch.randn(4, *shape)
    for width in (first, then):
        plain = network.supernet.extract(network.space.uniform(width))
        calibrate(plain, batches)
        calibrate(network.at(width=width), batches)
        close(network, plain, images)
        # It stays what it is through modes, at the same width again, and in what is cut out of it.
        network.train()
        network.eval()
        close(network.at(width=width), plain, images)
        close(network.supernet.extract(network.space.uniform(width)), plain, images)


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_of_a_config_after_a_width(name):
    network, shape = opened(name)
    batches = [(torch.randn(8, *shape), torch.zeros(8))]
    calibrate(network.at(width=0.5), batches)
    channels = {unit: counts.counts[len(counts.counts) // 2] for unit, counts in network.space.units.items()}
    plain = network.supernet.extract(channels)
    calibrate(plain, batches)
    calibrate(network.at(channels=channels), batches)
    close(network, plain, torch.randn(4, *shape))


@pytest.mark.parametrize("width", [3.0, -1.0, 0.0])
def test_a_width_that_the_supernet_does_not_hold_is_refused(width):
    network, _ = opened("concat")
    with pytest.raises(UsageError, match=r"width -?\d is outside the supernet's 0\.\d+ to 1\.\d"):
        network.at(width=width)


def test_what_was_measured_is_saved_and_loaded():
    network, shape = opened("concat")
    loaded = copy.deepcopy(network).at(width=1.0)
    batches = [(torch.randn(8, *shape), torch.zeros(8))]
    plain = network.supernet.extract(network.space.uniform(0.5))
    for one in (plain, network.at(width=0.5)):
        calibrate(one, batches)
    loaded.load_state_dict(network.state_dict())
    close(loaded.at(width=0.5), plain, torch.randn(4, *shape))


def test_a_calibrated_network_gives_gradients():
    """Calibration runs without autograd; what it leaves behind must not."""
    network, shape = opened("concat")
    calibrate(network.at(width=0.5), [(torch.randn(8, *shape), torch.zeros(8))])
    images = torch.randn(2, *shape, requires_grad=True)
    network(images).sum().backward()
    assert images.grad is not None
