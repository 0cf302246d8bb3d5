"""Read a caller's own network, and hold what a search found for it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import nn

from autoslim_cli.cost.configs import config_of
from autoslim_cli.cost.costs import Costs
from autoslim_cli.cost.fvcore_count import fvcore_flops
from autoslim_cli.data.batch import Tree
from autoslim_cli.errors import UsageError, expected
from autoslim_cli.files.channel_config import read_config, write_config
from autoslim_cli.library.loader import input_shapes
from autoslim_cli.network.rebuild import copied, fresh
from autoslim_cli.network.table import Channels
from autoslim_cli.network.trace import expected_network, read
from autoslim_cli.progress import Reporter, Talk
from autoslim_cli.recipe.errors import explain
from autoslim_cli.recipe.schema import ModelSettings, SpaceSettings, SupernetSettings
from autoslim_cli.seeds import seed_from
from autoslim_cli.slimming.base_network import BaseNetwork
from autoslim_cli.slimming.slimmable import SlimmableNetwork
from autoslim_cli.slimming.space import Space
from autoslim_cli.stages.inspect import layers_in, units_of
from autoslim_cli.training.score import Score

Schema = TypeVar("Schema", bound=BaseModel)
Keys = Mapping[str, object]
"""Keys of a recipe's section, and their values."""
OWN_WEIGHTS = "the weights that the network was given with"


class Count(NamedTuple):
    """What a network costs: multiply-adds of convolutions and linear layers for one image, weights and biases."""

    flops: int
    params: int


class Units(list[dict[str, Any]]):
    """The channel units of a network, in its order: objects as `autoslim units --json` gives them.

    Printed, it is a table of the free units, why some are capped, and why the others are not free.
    """

    def __repr__(self) -> str:
        free = [unit for unit in self if unit["pinned"] is None]
        rows = [("unit", "base", "range", "step", "layers that share it")]
        for one in free:
            numbers = (str(one["base"]), f"{one['min']}..{one['supernet']}", str(one["step"]))
            rows.append((one["name"], *numbers, ", ".join(layers_in(one))))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = ["  ".join([*(c.ljust(w) for c, w in zip(row[:4], widths, strict=True)), row[4]]) for row in rows]
        lines += [f"{one['name']} has {one['base']} at most: {one['capped']}" for one in free if one["capped"]]
        lines += [f"{one['name']} stays at {one['base']}: {one['pinned']}" for one in self if one["pinned"] is not None]
        return "\n".join(lines)


def units(
    model: nn.Module, example: Tree, *, width: float = 1.5, min_width: float = 0.15, space: Keys | None = None
) -> Units:
    """Return the channel units of a network: names, ranges, and the layers that share each.

    `example` is a batch of what the network takes: images (images, channels, height, width), or a tuple that begins
    with them; only its shapes count. `width` and `min_width` are the supernet's, `space` holds keys of a recipe's
    section. Raises UsageError if torch.fx cannot trace the network, or for settings that do not suit it.
    """
    settings = {"width": width, "min_width": min_width}
    network = base_network(model, example, settings, space, 0, torch.device("cpu"))
    return Units(units_of(network.space, network.reading.table))


def count(model: nn.Module, example: Tree) -> Count:
    """Return what a network costs: FLOPs for one image as fvcore counts them, and parameters.

    The network need not be one that can be slimmed. `example` is as in `units`.
    """
    expected_network("model", model)
    return Count(fvcore_flops(model, *input_shapes(example)), sum(p.numel() for p in model.parameters()))


def rebuild(model: nn.Module, example: Tree, channels: Channels | str | Path, *, seed: int = 0) -> nn.Module:
    """Return a network at other channels, newly initialised: what training from scratch begins with.

    `model` is newly built, gives its initialisation, and is not changed; `example` is as in `units`. `channels` are one
    count for every free unit, or the path of a channel config. Raises UsageError naming a unit that is missing, unknown
    or out of range, ArtifactError for a file that is damaged.
    """
    expected_network("model", model)
    expected("channels", channels, (Mapping, str, Path), "counts by unit, or the path of a channel config,")
    where = str(channels) if isinstance(channels, str | Path) else "channels"
    counts = read_config(Path(channels)).channels if isinstance(channels, str | Path) else channels
    with drawing_apart():
        table = read(copied(model).cpu(), *input_shapes(example)).table
        space = Space.of(table, width=1.0, min_width=0.5, groups=1, divisor=1)
        checked_counts = space.check(counts, where, bounded=False)
        torch.manual_seed(seed_from(seed, "resize"))
        return fresh(copied(model).cpu(), table, checked_counts)


@dataclass(frozen=True)
class Found:
    """What a search found for one budget.

    `channels` holds one count for every unit, tied ones included, `cost` what they cost by measure (`flops`, `params`,
    and what else was bounded). `score` is the supernet's at these channels, on so many `images` of the holdout:
    `score.loss`, `score.value`, and `score.text` for people. `budget` is what was asked, as `flops<=50%`.
    """

    supernet: SlimmableNetwork = field(repr=False)
    budget: str
    channels: dict[str, int]
    cost: dict[str, float]
    score: Score
    images: int

    def network(self, start: Literal["scratch", "supernet"] = "scratch") -> nn.Module:
        """Return the plain network that was found, on the supernet's device.

        From `scratch` it is newly initialised, as the network that the supernet was made of initialises itself. From
        the `supernet` it has the weights there; `calibrate` it before it is used. Raises UsageError if the supernet
        started from trained weights: what they were initialised from is not known.
        """
        refuse_unknown_start(start, "scratch", "supernet")
        if start == "supernet":
            return self.supernet.supernet.extract(self.channels)
        if self.supernet.network.model.weights == OWN_WEIGHTS:
            raise UsageError(
                "the supernet started from trained weights, which are no initialisation: rebuild(NETWORK, example, "
                "found.channels) takes a newly built network; network(start='supernet') goes on from the weights"
            )
        with drawing_apart():
            fresh = self.supernet.network.fresh(self.channels)
        return fresh.to(next(self.supernet.parameters()).device)

    def save(self, path: str | Path) -> None:
        """Write the channel config, as `autoslim search` does; fvcore has counted the network.

        Its model is called `module:Class` of the network. `rebuild` reads the file.
        """
        network = self.supernet.network
        costs = Costs.closed_form(network.reading.table)
        with drawing_apart():
            config = config_of(network, costs, self.channels)
        figures = f"loss {self.score.loss:.4f}, {self.score.metric.title} {self.score.text} on {self.images} images"
        write_config(Path(path), config.model_copy(update={"source": f"a search for {self.budget}: {figures}"}))


def base_network(
    model: nn.Module, example: Tree, supernet: Keys, space: Keys | None, seed: int, device: torch.device
) -> BaseNetwork:
    """Return a copy of a caller's network, read, with the space of its supernet."""
    expected_network("model", model)
    first, *others = input_shapes(example)
    name = f"{type(model).__module__}:{type(model).__qualname__}"
    settings = checked(ModelSettings, {"name": name, "input": first, "inputs": tuple(others)}, "example")
    steering = checked(SpaceSettings, space or {}, "space")
    wide = checked(SupernetSettings, supernet, "supernet")
    with drawing_apart():
        as_built = read(copied(model).cpu(), first, *others)
        return BaseNetwork.steered(as_built, settings, wide, steering, seed=seed, device=device)


def checked(schema: type[Schema], values: Keys, where: str) -> Schema:
    """Return settings. Raises UsageError naming the key that is wrong."""
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        raise UsageError(f"{where}: {explain(error, schema)}") from None


def beside(arguments: Keys, further: Keys | None, where: str) -> dict[str, object]:
    """Return a function's arguments and further keys of a section. Raises UsageError for a key that is an argument."""
    if twice := sorted(arguments.keys() & (further or {}).keys()):
        raise UsageError(f"{where}: {twice[0]} is an argument of the function's own: {twice[0]}=; leave it out here")
    return {**arguments, **(further or {})}


def refuse_unknown_start(start: str, *known: str) -> None:
    """Raise UsageError for a start that is none of those that are known."""
    if start not in known:
        raise UsageError(f"start: {' or '.join(known)}, not {start!r}")


@contextmanager
def drawing_apart() -> Iterator[None]:
    """Leave torch's generators as they were: what is drawn within depends on seeds alone."""
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
        yield


def reporter(progress: Callable[[str], object] | None) -> Reporter:
    """Return what tells a caller of long work, in lines; nothing without a function to tell."""
    return Reporter(talk=Talk.PROGRESS if progress else Talk.NOTHING, tell=progress)
