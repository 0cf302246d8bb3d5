"""What a forward pass without gradients holds is counted without computing it."""

import pytest
import torch
from torch import nn

from autoslim_cli.cost.activation_memory import ActivationMemory
from autoslim_cli.cost.forward_memory import Live, values_held
from autoslim_cli.latency.pieces import pieces
from autoslim_cli.models.built_in import cifar_resnet, mobilenet_v1
from autoslim_cli.network.trace import read

IMAGE = (3, 32, 32)
NETWORKS = {"cifar_resnet": lambda: cifar_resnet(10, depth=8, width=8), "mobilenet_v1": lambda: mobilenet_v1(10)}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_what_a_run_holds(name):
    """More than tensors between layers take: frames hold what they were given, and BN does not work in place."""
    network, images = NETWORKS[name]().eval(), torch.randn(8, *IMAGE)
    with Live([*network.parameters(), *network.buffers(), images]) as live, torch.inference_mode():
        network(images)
    values = values_held(network, [IMAGE])
    assert values == pytest.approx((live.most + images.nbytes) / (4 * len(images)), rel=0.01)
    reading = read(network, IMAGE)
    assert 4 * values > 1.2 * ActivationMemory.of(reading, pieces(reading))(reading.table.base)


def test_it_is_what_arithmetic_says():
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)).train()
    assert values_held(network, [(3, 4, 4)]) == 16 * (3 + 8 + 8)
    assert network.training


def test_of_what_needs_values_nothing_is_said():
    class Asks(nn.Module):
        def forward(self, images):
            return images if images.sum() > 0 else -images

    assert values_held(Asks(), [(3, 4, 4)]) == 0
