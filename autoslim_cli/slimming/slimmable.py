"""Load a supernet to run it at any width: for Python users, outside of any recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from autoslim_cli.errors import ArtifactError, UsageError
from autoslim_cli.files import checkpoint
from autoslim_cli.files.names import width_name
from autoslim_cli.files.provenance import refuse_another_network
from autoslim_cli.models.trust import Trust, build_named_by
from autoslim_cli.network.digest import digest
from autoslim_cli.network.rebuild import copied, fresh
from autoslim_cli.network.trace import expected_network, read
from autoslim_cli.recipe.commands import Commands
from autoslim_cli.recipe.schema import ModelSettings, SpaceSettings, SupernetSettings
from autoslim_cli.slimming.base_network import BaseNetwork
from autoslim_cli.slimming.space import Space
from autoslim_cli.slimming.supernet import Supernet


class SlimmableNetwork(torch.nn.Module):
    """A trained supernet that runs at the width or the channels that it is told to.

    With shared BN, calibrate it after every switch: `calibrate(network, batches)`. Its weights are frozen; gradients of
    images work.
    """

    def __init__(self, supernet: Supernet, network: BaseNetwork, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.supernet, self.network = supernet.requires_grad_(False).eval(), network
        self._facts = {**facts, "model": network.architecture, "channels": network.full}
        self._facts |= {"switches": network.switches} if network.switches else {}

    @property
    def space(self) -> Space:
        """Return the channels that it runs at."""
        return self.network.space

    def save(self, path: str | Path) -> None:
        """Write what `load` reads: a `supernet.safetensors`, with BN's statistics as they were measured last."""
        checkpoint.save(Path(path), checkpoint.SUPERNET, self.supernet.kept.state_dict(), self._facts)

    @classmethod
    def load(
        cls,
        path: str | Path,
        directory: str | Path | None = None,
        *,
        model: torch.nn.Module | None = None,
        trust: bool = False,
    ) -> "SlimmableNetwork":
        """Read a `supernet.safetensors`, of a command or of `save`.

        `model` is the network that it was made of, newly built; it is not changed. Without it, the file names the
        factory of its network: with `trust`, one is called that neither autoslim, torchvision nor timm lists, and
        `./net.py` is looked up in `directory`, by default the file's own. Raises UsageError without, and ArtifactError
        if the file is missing, damaged or foreign, or `model` or `./net.py` is not what it was made with.
        """
        path = Path(path)
        tensors, facts = checkpoint.load(path, checkpoint.SUPERNET, Commands.of_file(path)("train-supernet"))
        recipe = facts["made_from"]["recipe"]
        settings = ModelSettings.model_validate(facts["model"])
        steering = SpaceSettings.model_validate(recipe["space"])
        with torch.random.fork_rng(devices=[]):
            if model is not None:
                expected_network("model", model)
                built = copied(model).cpu()
            else:
                trusted = Trust(directory=Path(directory) if directory else None, anything=trust)
                try:
                    built = build_named_by(path, settings, trusted)
                except UsageError as error:
                    raise UsageError(f"{error}; or pass model=, the network that the supernet was made of") from None
            read_network = read(built, *settings.shapes, part=settings.trace)
            if model is not None or settings.name.startswith("./"):
                again = Commands.of_file(path)("train-supernet", "--force")
                refuse_another_network(path, facts, settings.name, digest(read_network), again)
            supernet_settings = SupernetSettings.model_validate(recipe["supernet"])
            network = BaseNetwork.steered(
                *(read_network, settings, supernet_settings, steering), seed=recipe["seed"], device=torch.device("cpu")
            )
            reading, space = network.reading, network.space
            full = space.check(facts["channels"], str(path), bounded=False)
            switches = {name: space.check(one, str(path)) for name, one in facts.get("switches", {}).items()}
            wanted = sum(row.params(full) for row in reading.table.rows)
            if wanted > (most := sum(tensor.numel() for tensor in tensors.values())):
                raise ArtifactError(f"{path}: its channels give {wanted:,} parameters, but it holds {most:,} values")
            if any(count > full[unit] for channels in switches.values() for unit, count in channels.items()):
                raise ArtifactError(f"{path}: damaged (switches have more channels than the supernet)")
            body = fresh(reading.module, reading.table, full)
        supernet = Supernet(body, reading, full, switches)
        checkpoint.fill(supernet.kept, tensors, path)
        return cls(supernet, network, facts)

    def at(self, *, width: float | None = None, channels: Mapping[str, int] | None = None) -> "SlimmableNetwork":
        """Run at a width, or at the channels of every unit, from now on.

        Raises UsageError for a width beyond the supernet's, or that is no switch of switchable BN, and for channels
        that do not fit.
        """
        if (width is None) == (channels is None):
            raise UsageError("name either a width or channels")
        if self.supernet.switches:
            name = width_name(width) if width is not None else ""
            if name not in self.supernet.switches:
                raise UsageError(
                    f"no switch {name or 'of these channels'}; there are {', '.join(self.supernet.switches)}"
                )
            self.supernet.switch_to(name)
        else:
            wanted = self.space.at_width(width) if width is not None else dict(channels or {})
            self.supernet.activate(self.space.check(wanted, "at()"))
        return self

    def forward(self, *inputs: Any) -> Any:
        """Compute what the network gives of its inputs: logits (batch, classes) of images, of a classifier."""
        return self.supernet(*inputs)

    def train(self, mode: bool = True) -> "SlimmableNetwork":
        """Stay in eval mode whatever is asked: a loaded supernet is not trained."""
        super().train(False)
        return self
