"""Hold the network that a recipe slims, as it was read, and build it and its supernet at any channels."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoslim_cli.errors import ArtifactError
from autoslim_cli.files import checkpoint
from autoslim_cli.files.facts import LearnedFrom
from autoslim_cli.files.learned import refuse_other_images, refuse_unsuited
from autoslim_cli.files.names import width_name
from autoslim_cli.files.provenance import difference, refuse_another_network
from autoslim_cli.models.zoo import build
from autoslim_cli.network.digest import digest
from autoslim_cli.network.reading import Reading
from autoslim_cli.network.rebuild import fresh, on_device
from autoslim_cli.network.table import Channels
from autoslim_cli.network.trace import read
from autoslim_cli.recipe.commands import Commands
from autoslim_cli.recipe.schema import ModelSettings, Recipe, SpaceSettings, SupernetSettings
from autoslim_cli.seeds import seed_from
from autoslim_cli.slimming.constraints import constrained, space_of
from autoslim_cli.slimming.space import Space
from autoslim_cli.slimming.supernet import Supernet, largest
from autoslim_cli.slimming.trained_weights import KEY, changed_by_widening, load_trained, sort_channels, widened


@dataclass(frozen=True)
class BaseNetwork:
    """A network that was read, its search space, and the channels of each switch if it has switchable BN."""

    model: ModelSettings
    digest: str
    """Of what was read, before units were pinned or tied: `model.name` does not say what it names."""
    reading: Reading
    space: Space
    switches: dict[str, dict[str, int]]
    seed: int
    device: torch.device

    @classmethod
    def of(cls, recipe: Recipe, directory: Path, device: torch.device) -> "BaseNetwork":
        """Build a recipe's network and read it.

        Raises UsageError naming the recipe key or the operation if it cannot be built, read or constrained as asked.
        """
        model = recipe.model
        torch.manual_seed(seed_from(recipe.seed, "init"))
        as_built = read(build(model, directory), *model.shapes, part=model.trace)
        return cls.steered(as_built, model, recipe.supernet, recipe.space, seed=recipe.seed, device=device)

    @classmethod
    def steered(
        cls,
        as_built: Reading,
        model: ModelSettings,
        supernet: SupernetSettings,
        space: SpaceSettings,
        *,
        seed: int,
        device: torch.device,
    ) -> "BaseNetwork":
        """Return a network that was read, its units constrained and its space laid out as settings say.

        Raises UsageError naming the setting that does not suit the network.
        """
        reading = constrained(as_built, space)
        laid_out = space_of(reading.table, supernet, space)
        widths = sorted(supernet.widths, reverse=True)  # none with shared BN
        switches = {width_name(width): laid_out.uniform(width) for width in widths}
        return cls(model, digest(as_built), reading, laid_out, switches, seed, device)

    @property
    def base(self) -> dict[str, int]:
        """Return the channels of the network as it was read."""
        return self.reading.table.base

    @property
    def full(self) -> dict[str, int]:
        """Return the channels of the supernet at its largest, or those that hold all switches."""
        return largest(self.switches) or self.space.largest

    @property
    def architecture(self) -> dict[str, Any]:
        """Return the model as plain JSON values, without the weights that it may start from."""
        return self.model.architecture.model_dump(mode="json")

    def fresh(self, channels: Channels) -> nn.Module:
        """Return a plain network at `channels`, newly initialised by the recipe's seed, on the device."""
        torch.manual_seed(seed_from(self.seed, "resize"))
        return on_device(fresh(self.reading.module, self.reading.table, channels), self.device, self.model.trace)

    def fresh_supernet(self) -> Supernet:
        """Return the supernet, newly initialised by the recipe's seed, on the device."""
        return Supernet(self.fresh(self.full), self.reading, self.full, self.switches)

    def trained(
        self, channels: Channels, directory: Path, say: Callable[[str], None], *, sort: bool, key: str = KEY
    ) -> nn.Module:
        """Return the network at `channels`, the first of which are those of `model.weights`, on the device.

        `sort`: the most important come first. `say` is told what it starts from; `key` is the recipe's that names the
        weights. Raises UsageError or ArtifactError if
        the weights are not there or of another network.
        """
        trained, done = load_trained(self.reading, self.model, directory, key=key)
        say("; ".join([f"starting from {self.model.weights}", *done]))
        return self.holding(trained, channels, say, sort=sort)

    def holding(self, trained: nn.Module, channels: Channels, say: Callable[[str], None], *, sort: bool) -> nn.Module:
        """Return the network at `channels`, the first of which are those of a trained one, on the device.

        `sort` puts the channels of `trained` itself in order. `say` is told where the function is not kept.
        """
        if sort:
            sort_channels(trained, self.reading.table)
        torch.manual_seed(seed_from(self.seed, "resize"))
        network = widened(trained, self.reading, channels)
        wider = any(channels[name] > count for name, count in self.base.items())
        if wider and (changing := changed_by_widening(self.reading)):
            say(f"the wider network does not compute what the trained one does: {changing[0]} (1 of {len(changing)})")
        return on_device(network, self.device, self.model.trace)

    def trained_supernet(self, directory: Path, say: Callable[[str], None], *, sort: bool) -> Supernet:
        """Return the supernet whose first channels are those of `model.weights`; arguments and errors as `trained`."""
        body = self.trained(self.full, directory, say, sort=sort)
        return Supernet(body, self.reading, self.full, self.switches)

    def load_supernet(
        self,
        path: Path,
        recipe: Recipe,
        images: str,
        commands: Commands,
        learned: LearnedFrom | None = None,
        *,
        same_holdout: bool = True,
    ) -> Supernet:
        """Return a trained supernet; `images` is the digest of the training images, and `learned` says more of them.

        `commands` are those on the recipe.

        Raises ArtifactError if it was made for another model, space or (`same_holdout`) holdout, or from another
        network, images or classes.
        """
        again = commands("train-supernet", "--force")  # a file that is there is not trained over without
        make = again if path.exists() else commands("train-supernet")
        tensors, facts = checkpoint.load(path, checkpoint.SUPERNET, make)
        described = {"model": self.architecture, "channels": self.full, "switches": self.switches}
        if why := difference({"switches": {}, **{k: facts[k] for k in described if k in facts}}, described):
            raise ArtifactError(
                f"{path}: trained for another model or supernet than the recipe now describes ({why}); "
                f"restore the recipe, or train again with `{again}`"
            )
        refuse_unsuited(path, facts, learned or LearnedFrom())
        refuse_another_network(path, facts, self.model.name, self.digest, again)
        refuse_other_images(path, facts, recipe, images, again, same_holdout=same_holdout)
        supernet = self.fresh_supernet()
        checkpoint.fill(supernet.kept, tensors, path)
        supernet.activate(supernet.full)
        return supernet
