"""Find trained weights by the names that torchvision and timm have for them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autoslim_cli.errors import ArtifactError, UsageError
from autoslim_cli.models.zoo import timm_module
from autoslim_cli.recipe.schema import ModelSettings

DEFAULT = "DEFAULT"
"""The name of the weights that a library recommends."""


@dataclass(frozen=True)
class LibraryWeights:
    """Weights that a library knows: what they are called, where they lie, and how they are loaded.

    They learned from pixels in [0, 1] less `mean`, divided by `std`, for each channel; nothing where that is not known.
    """

    name: str
    address: str
    state: Callable[[], Mapping[str, Tensor]]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def load(self, key: str) -> Mapping[str, Tensor]:
        """Return the state dict, downloaded by the library's own code where missing. Raises ArtifactError."""
        try:
            return self.state()
        except Exception as error:  # of the network, the disk, and of whatever a library makes of them
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ArtifactError(f"{key}: {self.address} could not be loaded ({reason}); give a file") from None


def is_library_name(name: str, directory: Path) -> bool:
    """Tell whether a setting names weights of a library, and not a file."""
    return not {".", "/", "\\"} & set(name) and not (directory / name).is_file()


def library_weights(model: ModelSettings, name: str, key: str) -> LibraryWeights:
    """Return the weights of a torchvision or timm network by their name.

    Raises UsageError naming the recipe key `key` and the names that there are.
    """
    library, _, network = model.name.partition("/")
    if library == "torchvision":
        return _torchvision_s(model, network, name, key)
    if library == "timm":
        return _timm_s(model, network, name, key)
    raise UsageError(f"{key}: {name} is a name of torchvision's or timm's weights; for {model.name} give a file")


def _torchvision_s(model: ModelSettings, network: str, name: str, key: str) -> LibraryWeights:
    import torchvision

    known: Any = torchvision.models.get_model_weights(network)
    if name not in known.__members__:
        raise UsageError(
            f"{key}: no {name} of {model.name}; there are {', '.join(known.__members__)}, or give a file"
        ) from None
    weights = known[name]
    images = weights.transforms()
    return LibraryWeights(
        name,
        str(weights.url),
        lambda: dict(weights.get_state_dict(progress=False, check_hash=True)),
        *(tuple(getattr(images, key, None) or ()) for key in ("mean", "std")),  # detectors normalise images themselves
    )


def _timm_s(model: ModelSettings, network: str, name: str, key: str) -> LibraryWeights:
    timm = timm_module(model.name)
    architecture = network.partition(".")[0]
    full = network if name == DEFAULT else f"{architecture}.{name}"
    try:
        found = timm.models.get_pretrained_cfg(full)
    except RuntimeError:  # no such name
        found = None
    if found is None or not found.has_weights:
        names = [DEFAULT, *(one.partition(".")[2] for one in timm.list_pretrained(f"{architecture}.*"))]
        there = f"there are {', '.join(names)}, or give a file" if len(names) > 1 else "timm has none: give a file"
        raise UsageError(f"{key}: no {name} of {model.name}; {there}")

    def state() -> Mapping[str, Tensor]:
        # timm's own code fits what it loads to the arguments; its classifier stays that of the weights.
        with torch.random.fork_rng(devices=[]):
            trained: torch.nn.Module = timm.create_model(full, pretrained=True, **model.args)
        return trained.state_dict()

    address = f"hf-hub:{found.hf_hub_id}" if found.hf_hub_id else str(found.url)
    return LibraryWeights(name, address, state, tuple(found.mean), tuple(found.std))
