"""Say what a training is: its settings and files, and how it is built, stepped and ended."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from autoslim_cli.data.batch import Batch, Tree
from autoslim_cli.files.names import metrics_file, trained_in
from autoslim_cli.files.provenance import decisive
from autoslim_cli.recipe.schema import TrainSettings
from autoslim_cli.training.passes import Pass

Facts = dict[str, Any]

Losses = dict[str, Tensor]
"""What a pass adds to the mean losses of its step, by name: (). The first is the one that progress shows."""

Step = Callable[[Tree, Tree, Pass], Losses]
"""Given the inputs and targets of a pass, add gradients and return the losses."""


@dataclass(frozen=True)
class Result:
    """What a training leaves in one file."""

    tensors: Mapping[str, Tensor]
    facts: Facts


@dataclass(frozen=True)
class Glance:
    """What a network in training reaches on the holdout: a few words, and the mean loss."""

    words: str
    loss: float


class Learned(Protocol):
    """What a training learns from, an epoch of full batches at a time: a recipe's `Images` are the model of it."""

    @property
    def device(self) -> torch.device:
        """Return where batches are put."""
        ...

    def __len__(self) -> int: ...

    def steps(self, batch: int) -> int:
        """Return how many batches an epoch has."""
        ...

    def part(self, batch: int, rank: int, size: int) -> range:
        """Return the places of a batch that one of `size` processes takes."""
        ...

    def training(
        self, batch: int, seed: int, epoch: int, start: int = 0, *, epochs: int = 1, rank: int = 0, size: int = 1
    ) -> Iterator[Batch]:
        """Yield the batches of epochs from step `start` of one, on the device: the part of one of `size` processes.

        They depend on nothing but the arguments.
        """
        ...


@dataclass(frozen=True)
class Training:
    """What is trained, and on what.

    `after_epoch` scores the network on the holdout; `results` measures what was trained, and gives each file's content.
    `statistics` are BN's running averages, which processes average after every step. `memory` gives the bytes
    of a step over a number of images at a time, about; with a `part`, whose name it is, of all tensors those in it
    alone. `looks` says, by the recipe's keys, how many images forward passes without gradients take at a time, beside
    the steps or after the last one; `look_memory` gives the bytes of such a pass. `optimizer` and `schedule` make
    others than the settings' from the network, and from the optimizer and the number of steps.
    """

    network: nn.Module
    images: Learned
    step: Step
    zero_gradients: Callable[[], None]
    results: Callable[[], Mapping[Path, Result]] = dict
    after_epoch: Callable[[], Glance] | None = None
    statistics: Sequence[Tensor] = ()
    memory: Callable[[int], int] | None = None
    looks: Mapping[str, int] = field(default_factory=dict)
    look_memory: Callable[[int], int] = lambda images: 0
    part: str = ""
    optimizer: Callable[[nn.Module], Optimizer] | None = None
    schedule: Callable[[Optimizer, int], LRScheduler] | None = None


@dataclass(frozen=True)
class Job:
    """A training's settings and files.

    `channels` are those of the network in each file that it ends in; `state` is what it can be continued from: without
    it nothing is written while it trains.
    """

    settings: TrainSettings
    seed: int
    made_from: dict[str, Any] = field(default_factory=dict)
    format: str = ""
    channels: Mapping[Path, dict[str, int]] = field(default_factory=dict)
    state: Path | None = None
    replaces: bool = True
    """Whether what is finished and not current is made anew without being asked; the old one is kept in any case."""
    forced: bool = False
    """Whether a stopped training that would be lost may be: without it, it is refused."""
    track: Sequence[str] = ()
    """What else takes the metrics: names of `trackers.TRACKERS`."""
    read_last: Collection[str] = ()
    """The recipe's sections, and keys as `retrain.calibrate`, that are read after the last step alone."""

    @property
    def section(self) -> str:
        """Return the recipe's section of the settings."""
        return self.settings.section

    @property
    def name(self) -> str:
        """Return what is trained: `supernet`, `joint`, or `model-` and a name."""
        return trained_in(self.state) if self.state else self.section

    @property
    def metrics(self) -> Path | None:
        """Return the file that says how the training goes: `<name>.metrics.jsonl`."""
        return self.state.with_name(metrics_file(self.name)) if self.state else None

    @property
    def decisive(self) -> dict[str, Any]:
        """Return what the training depends on: a state of anything else is refused.

        The test images are not among it, which are looked at once it is over, nor the settings that are read then: an
        image that is mended, or a batch that is lowered, costs no training.
        """
        origin = decisive(self.made_from)
        recipe = {
            name: {key: value for key, value in section.items() if f"{name}.{key}" not in self.read_last}
            if isinstance(section, Mapping)
            else section
            for name, section in origin["recipe"].items()
            if name not in self.read_last
        }
        contents = {name: digest for name, digest in origin.get("contents", {}).items() if name != "test images"}
        channels = {path.name: counts for path, counts in self.channels.items()}
        return {**origin, "recipe": recipe, "contents": contents, "channels": channels}
