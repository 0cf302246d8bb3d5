"""Open a recipe for work: its network, its search space, its images and its files."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoslim_cli.cost.activation_memory import ActivationMemory
from autoslim_cli.cost.closed_form import flops, params
from autoslim_cli.cost.fvcore_count import agree
from autoslim_cli.data import sets as data
from autoslim_cli.data.sources import Part, Source
from autoslim_cli.errors import ArtifactError
from autoslim_cli.files import checkpoint
from autoslim_cli.files.atomic import sha256
from autoslim_cli.files.channel_config import ChannelConfig, Cost, Found, LatencyFacts, config_sha256, read_config
from autoslim_cli.latency.predictor import Latency, predictor
from autoslim_cli.latency.table import LatencyTable, read_table
from autoslim_cli.machine import choose_device, keep_freed_memory
from autoslim_cli.models.zoo import build
from autoslim_cli.network.pieces import Piece, pieces
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.rebuild import fresh, settled
from autoslim_cli.network.table import Channels
from autoslim_cli.network.trace import read
from autoslim_cli.progress import Reporter
from autoslim_cli.recipe.schema import Recipe
from autoslim_cli.seeds import seed_from
from autoslim_cli.slimming.space import Space
from autoslim_cli.slimming.steering import space_of, steered
from autoslim_cli.slimming.supernet import Supernet, largest
from autoslim_cli.slimming.trained_weights import changed_by_widening, load_trained, sort_channels, widened

SUPERNET_FILE = "supernet.safetensors"
TRAIN_SUPERNET = "autoslim train-supernet"


@dataclass(frozen=True)
class Workshop:
    """A recipe, its directory, and what follows from them."""

    recipe: Recipe
    directory: Path
    reporter: Reporter
    measures: tuple[str, ...] = ()
    """What costs hold besides FLOPs and parameters: `activation_memory`, `latency`."""
    latency_table: Path | None = None

    @cached_property
    def device(self) -> torch.device:
        """Return the device to work on; choosing it also sets the process up for it."""
        keep_freed_memory()
        return choose_device(self.recipe.device)

    @cached_property
    def reading(self) -> Reading:
        """Return the network as it was read, freshly initialised by the recipe's seed."""
        model = self.recipe.model
        torch.manual_seed(seed_from(self.recipe.seed, "init"))
        reading = read(build(model, self.directory), model.input, model.classes)
        return steered(reading, self.recipe.space)

    @cached_property
    def space(self) -> Space:
        """Return the search space."""
        return space_of(self.reading.table, self.recipe.supernet, self.recipe.space)

    @cached_property
    def switches(self) -> dict[str, dict[str, int]]:
        """Return the channels of each switch of a slimmable network with switchable BN; none with shared BN."""
        supernet = self.recipe.supernet
        if supernet.bn == "shared":
            return {}
        return {width_name(width): self.space.uniform(width) for width in sorted(supernet.widths, reverse=True)}

    @property
    def full(self) -> dict[str, int]:
        """Return the channels of the supernet at its largest, or those that hold all switches."""
        return largest(self.switches) or self.space.largest

    @property
    def architecture(self) -> dict[str, Any]:
        """Return the model as plain JSON values, without the weights that it may start from."""
        return self.recipe.model.architecture.model_dump(mode="json")

    def path(self, name: str) -> Path:
        """Return the path of one of the recipe's files."""
        return self.directory / name

    # -- images -----------------------------------------------------------------------------------------------------

    def _source(self, part: Part) -> Source:
        recipe = self.recipe
        return data.open_source(part, recipe.data, recipe.model, recipe.seed, self.directory, self.device)

    @cached_property
    def _training_source(self) -> Source:
        return self._source("train")

    @cached_property
    def _test_source(self) -> Source:
        return self._source("test")

    @cached_property
    def _training(self) -> tuple[data.Images, data.Images]:
        return data.split_holdout(self._training_source, self.recipe.data, self.recipe.seed, self.device)

    @property
    def training_images(self) -> data.Images:
        """Return the training images less the holdout."""
        return self._training[0]

    @property
    def holdout(self) -> data.Images:
        """Return the holdout."""
        return self._training[1]

    def all_training_images(self) -> data.Images:
        """Return all training images, the holdout's among them."""
        return data.whole(self._training_source, self.recipe.data, self.device)

    def test_images(self) -> data.Images:
        """Return the test images."""
        return data.whole(self._test_source, self.recipe.data, self.device)

    # -- networks ---------------------------------------------------------------------------------------------------

    def flops(self, channels: Channels) -> int:
        """Return the multiply-adds at `channels`."""
        return flops(self.reading.table, channels)

    def params(self, channels: Channels) -> int:
        """Return the parameters at `channels`."""
        return params(self.reading.table, channels)

    def cost(self, channels: Channels) -> dict[str, Any]:
        """Return what every result says of a network's cost: FLOPs, parameters, and what else is asked for."""
        cost: dict[str, Any] = {"flops": self.flops(channels), "params": self.params(channels)}
        if "activation_memory" in self.measures:
            cost["activation_memory"] = self._activation_memory(channels)
        if "latency" in self.measures:
            cost["latency"] = self.latency(channels)
        return cost

    @cached_property
    def pieces(self) -> list[Piece]:
        """Return the pieces whose latency is measured one by one."""
        return pieces(self.reading)

    @cached_property
    def _activation_memory(self) -> ActivationMemory:
        return ActivationMemory.of(self.reading, self.pieces)

    @cached_property
    def times(self) -> LatencyTable:
        """Return the latency table. Raises ArtifactError if there is none, or it is damaged."""
        assert self.latency_table is not None
        return read_table(self.latency_table)

    @cached_property
    def latency(self) -> Latency:
        """Return the predictor of latency in ms. Raises ArtifactError if the table does not hold this search space."""
        return predictor(self.times, self.pieces, *self.space.ends, str(self.latency_table))

    def fresh_network(self, channels: Channels) -> nn.Module:
        """Return a plain network at `channels`, newly initialised by the recipe's seed, on the device."""
        torch.manual_seed(seed_from(self.recipe.seed, "resize"))
        return settled(fresh(self.reading.module, self.reading.table, channels), self.device)

    def trained_network(self, channels: Channels) -> nn.Module:
        """Return the network at `channels`, the first ones those of `model.weights`, on the device."""
        say, model = self.reporter.say, self.recipe.model
        trained, left = load_trained(self.reading, model, self.directory)
        if self.recipe.supernet.sort:
            sort_channels(trained, self.reading.table)
        torch.manual_seed(seed_from(self.recipe.seed, "resize"))
        network = widened(trained, self.reading, channels)
        say(f"starting from {model.weights}" + (f"; as initialised: {', '.join(left)}" if left else ""))
        if changing := changed_by_widening(self.reading):
            say(f"the wider network does not compute what the trained one does: {changing[0]} (1 of {len(changing)})")
        return settled(network, self.device)

    def fresh_supernet(self, *, trained: bool = False) -> Supernet:
        """Return a supernet on the device, newly initialised, or `trained`: from `model.weights` if there are any."""
        of_weights = trained and self.recipe.model.weights is not None
        body = self.trained_network(self.full) if of_weights else self.fresh_network(self.full)
        return Supernet(body, self.reading, self.full, self.switches)

    def load_supernet(self, path: Path | None = None) -> Supernet:
        """Return the trained supernet. Raises ArtifactError if it was made for another model or space."""
        path = path or self.path(SUPERNET_FILE)
        tensors, facts = checkpoint.load(path, checkpoint.SUPERNET, TRAIN_SUPERNET)
        described = (self.architecture, self.full, self.switches)
        if (facts["model"], facts["channels"], facts.get("switches", {})) != described:
            raise ArtifactError(
                f"{path}: trained for another model or supernet than the recipe now describes; "
                f"restore the recipe, or train again with `{TRAIN_SUPERNET}`"
            )
        self._refuse_another_holdout(path, facts)
        supernet = self.fresh_supernet()
        checkpoint.fill(supernet.kept, tensors, path)
        supernet.activate(supernet.full)
        return supernet

    def _refuse_another_holdout(self, path: Path, facts: dict[str, Any]) -> None:
        """Raise ArtifactError if the recipe's holdout would hold images that the supernet was trained on."""
        then, now = facts["made_from"]["recipe"], {"seed": self.recipe.seed, **self.recipe.sections("data")}
        keys = [("seed", then["seed"], now["seed"])]
        keys += [(f"data.{k}", then["data"].get(k), now["data"][k]) for k in ("name", "path", "limit", "holdout")]
        for key, before, after in keys:
            if before != after:
                raise ArtifactError(
                    f"{path}: trained with {key}={before}, but it is {after} now: the holdout would hold images that "
                    f"it was trained on; restore {key}, or train again with `{TRAIN_SUPERNET}`"
                )

    # -- files ------------------------------------------------------------------------------------------------------

    def made_from(self, *sections: str, parents: dict[str, str] | None = None) -> dict[str, Any]:
        """Return what an artifact records of its origin: recipe, seed, parents' sha256, versions."""
        return {
            "recipe": {"seed": self.recipe.seed, **self.recipe.sections("model", *sections)},
            "parents": parents or {},
            "versions": checkpoint.versions(),
        }

    def config(
        self,
        channels: Channels,
        *,
        network: nn.Module | None = None,
        found: Found | None = None,
        measured_ms: float | None = None,
    ) -> ChannelConfig:
        """Return the channel config of `channels`, its cost agreed by fvcore on the extracted network."""
        if network is None:
            network = fresh(self.reading.module, self.reading.table, channels)
        counted = agree(network, self.reading.table, channels, self.recipe.model.input)
        more = {name: value for name, value in self.cost(channels).items() if name == "activation_memory"}
        if "latency" in self.measures:
            more["latency"] = LatencyFacts(
                predicted_ms=round(self.latency(channels), 4),
                measured_ms=measured_ms,
                device=str(self.times.device),
                table=sha256(self.latency_table) if self.latency_table else "",
            )
        cost = Cost(flops=counted, params=self.params(channels), **more)
        spelled_out = self.space.spelled_out(channels)
        return ChannelConfig(model=self.recipe.model.architecture, channels=spelled_out, cost=cost, found=found)

    def read_channels(self, path: Path, *, bounded: bool) -> dict[str, int]:
        """Return the checked channels of a channel config for this recipe's model."""
        config = read_config(path)
        if config.model != self.recipe.model.architecture:
            raise ArtifactError(
                f"{path}: a config for {describe(config.model)}, but the recipe's model is "
                f"{describe(self.recipe.model)}; name its recipe with --recipe"
            )
        channels = self.space.check(config.channels, str(path), bounded=bounded)
        check_cost(path, config, self.flops(channels), self.params(channels))
        return channels

    def save_model(self, path: Path, network: nn.Module, config: ChannelConfig, facts: dict[str, Any]) -> None:
        """Write a plain network as a deployable checkpoint: its weights and its channel config."""
        values = {"config": config.model_dump(mode="json", exclude_none=True), **facts}
        checkpoint.save(path, checkpoint.MODEL, network.state_dict(), values)

    def sha256_of(self, *paths: Path) -> dict[str, str]:
        """Return the sha256 of artifacts by file name; a channel config's without its latency, which varies."""
        return {path.name: config_sha256(path) if path.suffix == ".json" else sha256(path) for path in paths}


def check_cost(path: Path, config: ChannelConfig, counted: int, held: int) -> None:
    """Raise ArtifactError if a config's cost does not recompute."""
    if config.cost and (config.cost.flops, config.cost.params) != (counted, held):
        raise ArtifactError(
            f"{path}: says {config.cost.flops} FLOPs and {config.cost.params} parameters, but its channels give "
            f"{counted} and {held}; correct cost, or leave it out"
        )


def describe(model: Any) -> str:
    """Name a model with what sets it apart."""
    details = [f"{key}={value}" for key, value in model.args.items()]
    details += [f"input={list(model.input)}", f"classes={model.classes}"]
    details += [f"strides={model.strides}"] if model.strides else []
    return f"{model.name} ({', '.join(details)})"


def width_name(width: float) -> str:
    """Name what belongs to a width."""
    return f"width-{width:g}"


def slug(text: str) -> str:
    """Return text fit for a file name."""
    return re.sub(r"[^\w.-]+", "-", text)
