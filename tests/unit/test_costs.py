"""Costs by name: what they say, and that nothing is computed twice."""

from autoslim_cli.cost.closed_form import flops, params
from autoslim_cli.cost.costs import Costs
from autoslim_cli.models.built_in import cifar_resnet
from autoslim_cli.network.trace import read


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
