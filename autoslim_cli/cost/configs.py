"""Make channel configs whose cost fvcore agrees with, and read those whose cost recomputes."""

from pathlib import Path
from typing import Any

from torch import nn

from autoslim_cli.cost.costs import Costs
from autoslim_cli.cost.fvcore_count import agree
from autoslim_cli.errors import ArtifactError
from autoslim_cli.files.channel_config import ChannelConfig, Cost, Found, LatencyFacts, describe, read_config
from autoslim_cli.network.table import Channels
from autoslim_cli.slimming.base_network import BaseNetwork


def config_of(
    network: BaseNetwork,
    costs: Costs,
    channels: Channels,
    *,
    built: nn.Module | None = None,
    found: Found | None = None,
    latency: LatencyFacts | None = None,
) -> ChannelConfig:
    """Return the channel config of `channels`; fvcore counts `built`, the plain network, made if it is not given.

    Raises AutoslimError if fvcore counts otherwise.
    """
    counted = agree(built or network.fresh(channels), network.reading, channels)
    memory: dict[str, Any] = {name: costs[name](channels) for name in ("activation_memory",) if name in costs}
    cost = Cost(flops=counted, params=int(costs["params"](channels)), latency=latency, **memory)
    return ChannelConfig(
        model=network.model.architecture, channels=network.space.spelled_out(channels), cost=cost, found=found
    )


def read_channels(path: Path, network: BaseNetwork, costs: Costs, *, bounded: bool) -> dict[str, int]:
    """Return the checked channels of a channel config; `bounded` refuses what the supernet does not hold.

    Raises ArtifactError for a config of another model, or one whose cost does not recompute.
    """
    config = read_config(path)
    if config.model.architecture != network.model.architecture:
        raise ArtifactError(
            f"{path}: a config for {describe(config.model)}, but the recipe in use has {describe(network.model)}; take "
            "the recipe that it was made for, or, if it is the same network, write the recipe's model into the config"
        )
    channels = network.space.check(config.channels, str(path), bounded=bounded)
    check_cost(path, config, costs, channels)
    return channels


def check_cost(path: Path, config: ChannelConfig, costs: Costs, channels: Channels) -> None:
    """Raise ArtifactError if a config's cost does not recompute."""
    flops, params = costs["flops"](channels), costs["params"](channels)
    if config.cost and (config.cost.flops, config.cost.params) != (flops, params):
        raise ArtifactError(
            f"{path}: says {config.cost.flops} FLOPs and {config.cost.params} parameters, but its channels give "
            f"{flops} and {params}; correct cost, or leave it out"
        )
