"""Hold what a report shows. Plain values: nothing here reads a file or knows a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from autoslim_cli.files.metric import Metric

Kind = Literal["base", "supernet", "found", "subnet", "retrained"]


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer: the units that decide its outputs, and whether it has counts of its own to draw.

    A depthwise convolution has the counts of the layer before it.
    """

    name: str
    units: tuple[str, ...]
    depthwise: bool = False


@dataclass(frozen=True)
class Network:
    """A network, what it costs, and what was measured of it.

    `costs` are by name, latency among them as `ms on DEVICE`. `scores` are by the images that it was measured on.
    `outputs`, `flops` and `params` are by layer, `ms` by device and then by layer. `channels_by`: what chose its
    channels, `searched`, `one width` or `random`. `trained` says how it was, in a few words, `training` is all that it
    depended on but the `seed`. `budget`: what a search was given, and `limits` that by cost.
    """

    name: str
    kind: Kind
    costs: Mapping[str, float]
    channels: Mapping[str, int]
    outputs: Mapping[str, int]
    flops: Mapping[str, int]
    params: Mapping[str, int]
    ms: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    channels_by: str = ""
    trained: str = ""
    training: str = ""
    seed: int = 0
    budget: str = ""
    limits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Parent:
    """What an artifact was made from, and whether that file still is what it was: `same`, `changed` or `missing`."""

    name: str
    digest: str
    now: str


@dataclass(frozen=True)
class Artifact:
    """A file of the recipe's directory, and what it says of its origin."""

    name: str
    what: str
    digest: str
    parents: Sequence[Parent] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """Everything that a report shows of a recipe's directory.

    `steps` are those of the last search, as its log has them; `curves` are steps and losses by training; `notes` say
    what was left out and why.
    """

    title: str
    about: str
    model: str
    metric: Metric
    layers: Sequence[Layer]
    base: Network
    supernet: Network
    found: Sequence[Network]
    others: Sequence[Network]
    steps: Sequence[Mapping[str, Any]]
    curves: Mapping[str, Sequence[tuple[float, float]]]
    search: str
    artifacts: Sequence[Artifact]
    notes: Sequence[str]
    recipe: str
    version: str
