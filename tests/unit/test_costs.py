"""Costs by name: what they say, and that nothing is computed twice."""

import random

import pytest
import torch
import torchvision
from torch import nn

from autoslim_cli.cost import fvcore_count
from autoslim_cli.cost.closed_form import flops, on_arrays, params
from autoslim_cli.cost.costs import Costs
from autoslim_cli.errors import AutoslimError
from autoslim_cli.models.built_in import cifar_resnet
from autoslim_cli.network.trace import read
from autoslim_cli.slimming.space import Space


def test_costs_are_functions_of_channels_by_name():
    table = read(cifar_resnet(10, depth=8, width=8), (3, 8, 8)).table
    costs = Costs.closed_form(table)
    half = {name: max(1, count // 2) if name != "fc" else count for name, count in table.base.items()}
    for channels in (table.base, half):
        assert costs(channels) == {"flops": flops(table, channels), "params": params(table, channels)}
        assert costs["flops"](channels) == flops(table, channels)
    assert list(costs) == ["flops", "params"]
    assert "latency" not in costs


def test_a_cost_is_computed_once_for_the_same_counts():
    table = read(cifar_resnet(10, depth=8, width=8), (3, 8, 8)).table
    asked = []

    def memory(channels):
        asked.append(channels)
        return sum(channels.values())

    costs = Costs.closed_form(table).also("memory", memory)
    backwards = dict(reversed(table.base.items()))
    assert costs(table.base)["memory"] == costs(backwards)["memory"] == sum(table.base.values())
    assert len(asked) == 1
    costs({**table.base, "conv1": 3})
    assert len(asked) == 2


@pytest.mark.parametrize(
    "name", ["mobilenet_v3_small", "resnext50_32x4d", "shufflenet_v2_x0_5", "densenet121", "googlenet"]
)
def test_arrays_compute_what_rows_say(name):
    arguments = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    table = read(torchvision.models.get_model(name, num_classes=10, **arguments), (3, 96, 96)).table
    space = Space.of(table, width=1.5, min_width=0.25, groups=6, divisor=8)
    in_arrays = on_arrays(table)
    for seed in range(3):
        channels = space.random(random.Random(seed))
        assert [cost(channels) for cost in in_arrays] == [flops(table, channels), params(table, channels)]


def test_nothing_is_counted_where_fvcore_counts_otherwise(monkeypatch):
    network = cifar_resnet(10, depth=8, width=8)
    reading = read(network, (3, 8, 8))
    said = flops(reading.table, reading.table.base)
    assert fvcore_count.agree(network, reading, reading.table.base) == said
    monkeypatch.setattr(fvcore_count, "fvcore_flops", lambda *_: said + 1)
    with pytest.raises(AutoslimError, match=f"counts {said} FLOPs and .* fvcore {said + 1} and .* counted differently"):
        fvcore_count.agree(network, reading, reading.table.base)


def test_nothing_is_counted_where_the_network_holds_other_parameters():
    network = cifar_resnet(10, depth=8, width=8)
    reading = read(network, (3, 8, 8))
    network.more = nn.Parameter(torch.zeros(1))
    with pytest.raises(AutoslimError, match="counted differently"):
        fvcore_count.agree(network, reading, reading.table.base)
