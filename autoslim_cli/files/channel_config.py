"""Read and write channel configs: the one contract between search, people and training."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from torch import nn

from autoslim_cli.errors import ArtifactError, UsageError
from autoslim_cli.files import checkpoint
from autoslim_cli.files.atomic import sha256, write_json
from autoslim_cli.files.document import read_json, refuse_format
from autoslim_cli.files.making import making_config
from autoslim_cli.files.metric import TOP1, Metric
from autoslim_cli.files.names import config_name, model_stem
from autoslim_cli.recipe.errors import explain
from autoslim_cli.recipe.schema import ModelSettings, Positive, Settings

FORMAT = "autoslim.channels/1"
COUNTED = "multiply-adds of conv and linear, batch 1; fvcore agrees"


class LatencyFacts(Settings):
    """Hold a network's latency on one device, as its table predicts it and as it was measured end to end."""

    predicted_ms: float
    measured_ms: float | None = Field(default=None, description="End to end, where the table is of this machine")
    device: str = Field(description="What was measured on, and how")
    table: str = Field(description="sha256 of the latency table")


class Cost(Settings):
    """Hold what the extracted network costs."""

    flops: Positive = Field(description="Multiply-adds of convolutions and linear layers, batch 1")
    params: Positive = Field(description="Weights and biases")
    activation_memory: Positive | None = Field(
        default=None, description="Bytes that tensors between layers hold at most at a time, batch 1, fp32"
    )
    latency: LatencyFacts | None = None
    counted: str = Field(default=COUNTED, description="What FLOPs are, for people")


class Holdout(Settings):
    """Say which images scored the channels."""

    images: Positive = Field(description="How many")
    seed: int = Field(description="What drew them from the training images")


class Found(Settings):
    """Say how a search found the channels. The score stands under its metric's name: `"top1": 0.61`."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[float, Field(strict=True, allow_inf_nan=False)]] = Field(init=False)

    budget: str = Field(description="What was asked, as `flops<=40M`")
    binding: str | None = Field(default=None, description="The measure whose bound the channels come nearest to")
    strategy: str | None = Field(default=None, description="`search.strategy`")
    holdout: Holdout
    metric: Metric = Field(default=TOP1, description="What the score is, which stands beside under its name")
    loss: float = Field(description="Of the supernet at these channels, on the holdout", strict=True)
    step: int = Field(description="The step of the search, as `search.jsonl` counts them")
    supernet: str = Field(description="sha256 of the supernet")

    @field_validator("loss")
    @classmethod
    def _of_use(cls, loss: float, info: ValidationInfo) -> float:
        metric = info.data.get("metric", TOP1)
        if not metric.can_be(loss, 0):
            raise ValueError("no network has such a loss")
        return loss

    @property
    def score(self) -> float:
        """Return the value of the metric on the holdout."""
        return self.__pydantic_extra__[self.metric.name]

    @model_validator(mode="after")
    def _scored(self) -> Self:
        if list(self.__pydantic_extra__) != [self.metric.name]:
            raise ValueError(f"beside the keys of a search stands its score, {self.metric.name}, and nothing else")
        if not self.metric.can_be(0, self.score):
            raise ValueError(f"found.{self.metric.name}: no network has {self.metric.title} of {self.score:g}")
        return self


class ChannelConfig(Settings):
    """One count for every unit of one model."""

    format: Literal["autoslim.channels/1"] = "autoslim.channels/1"
    model: ModelSettings
    channels: dict[str, int] = Field(description="One count for every unit, by name")
    source: str | None = Field(default=None, description="Where the channels come from, if not from a search")
    cost: Cost | None = None
    found: Found | None = None


def read_config(path: Path) -> ChannelConfig:
    """Read a channel config; its units and counts are checked against the network by `Space.check`.

    Raises ArtifactError for a missing or damaged file, UsageError for a key that a config does not have.
    """
    what, origin = "channel config", f"`{making_config(path)}` writes one"
    values = read_json(path, what, origin)
    refuse_format(path, values, FORMAT, what, origin)
    try:
        return ChannelConfig.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{path}: {explain(error, ChannelConfig)}") from None


def by_name(configs: Iterable[Path]) -> dict[str, Path]:
    """Return configs by their names. Raises UsageError for two of one name, which would be made into one file."""
    named: dict[str, Path] = {}
    files: dict[str, Path] = {}
    for path in configs:
        name = config_name(path)
        if (other := files.setdefault(model_stem(name), path)) is not path:
            raise UsageError(f"{other} and {path}: both are called {name}, or would be in a file's name; rename one")
        named[name] = path
    return named


def config_in(path: Path, facts: dict[str, Any]) -> ChannelConfig:
    """Return the channel config that the facts of a checkpoint hold. Raises ArtifactError if it is damaged."""
    try:
        return ChannelConfig.model_validate(facts["config"])
    except ValidationError as error:
        raise ArtifactError(f"{path}: damaged (config: {explain(error, ChannelConfig)}); make it again") from None


BY_HAND = "by hand"


def chosen_by(path: Path) -> str:
    """Return what chose a config's channels: the strategy of the search that found them, or `by hand`."""
    found = read_config(path).found
    return (found.strategy or "a search") if found else BY_HAND


def write_config(path: Path, config: ChannelConfig) -> None:
    """Write a channel config atomically, without empty keys."""
    write_json(path, config.model_dump(mode="json", exclude_none=True))


def config_sha256(path: Path) -> str:
    """Return a config's sha256; of one that says a latency, of what it says beside: networks do not depend on that."""
    config = read_config(path)
    if config.cost is None or config.cost.latency is None:
        return sha256(path)
    rest = config.model_copy(update={"cost": config.cost.model_copy(update={"latency": None})})
    return f"sha256:{hashlib.sha256(rest.model_dump_json(exclude_none=True).encode()).hexdigest()}"


def save_model(path: Path, network: nn.Module, config: ChannelConfig, facts: dict[str, Any]) -> None:
    """Write a plain network as a deployable checkpoint: its weights and its channel config."""
    values = {"config": config.model_dump(mode="json", exclude_none=True), **facts}
    checkpoint.save(path, checkpoint.MODEL, network.state_dict(), values)


def describe(model: ModelSettings) -> str:
    """Name a model with what sets it apart."""
    details = [f"{key}={value}" for key, value in sorted(model.args.items())]
    details += [f"input={list(model.input)}", f"classes={model.classes}"]
    details += [f"inputs={[list(shape) for shape in model.inputs]}"] if model.inputs else []
    details += [f"strides={model.strides}"] if model.strides else []
    details += [f"trace={model.trace}"] if model.trace else []
    return f"{model.name} ({', '.join(details)})"
