"""Say what a training is: its settings and files, and how it is built, stepped and ended."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from autoslim_cli.data.sets import Images
from autoslim_cli.files.provenance import decisive
from autoslim_cli.recipe.schema import TrainSettings
from autoslim_cli.training.passes import Pass

Facts = dict[str, Any]

Losses = dict[str, Tensor]
"""What a pass adds to the mean losses of its step, by name: (). The first is the one that progress shows."""

Step = Callable[[Any, Any, Pass], Losses]
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


@dataclass(frozen=True)
class Training:
    """What is trained, and on what.

    `after_epoch` scores the network on the holdout; `results` measures what was trained, and gives each file's content.
    `statistics` are BN's running averages, which processes average after every step. `memory` gives the bytes
    of a step over a number of images at a time, about.
    """

    network: nn.Module
    images: Images
    step: Step
    zero_gradients: Callable[[], None]
    results: Callable[[], Mapping[Path, Result]]
    after_epoch: Callable[[], Glance] | None = None
    statistics: Sequence[Tensor] = ()
    memory: Callable[[int], int] | None = None


@dataclass(frozen=True)
class Job:
    """A training from its settings to its files; `build` is called if there is anything to train.

    `section` is the recipe's section of `settings`; `channels` are those of the network in each file that it ends in;
    `state` is what it can be continued from.
    """

    section: str
    settings: TrainSettings
    seed: int
    made_from: dict[str, Any]
    format: str
    channels: Mapping[Path, dict[str, int]]
    state: Path
    build: Callable[[], Training]
    replaces: bool = True
    """Whether what is finished and not current is made anew without being asked; the old one is kept in any case."""
    track: Sequence[str] = ()
    """What else takes the metrics: names of `trackers.TRACKERS`."""

    @property
    def name(self) -> str:
        """Return what is trained: `supernet`, `joint`, or `model-` and a name."""
        return self.state.name.removesuffix(".resume.pt")

    @property
    def metrics(self) -> Path:
        """Return the file that says how the training goes: `<name>.metrics.jsonl`."""
        return self.state.with_name(f"{self.name}.metrics.jsonl")

    @property
    def decisive(self) -> dict[str, Any]:
        """Return what the result depends on: a state of anything else is refused."""
        return {**decisive(self.made_from), "channels": {path.name: counts for path, counts in self.channels.items()}}
