"""Say what the facts of a checkpoint must be: readers may rely on what was checked here."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from autoslim_cli.files.metric import TOP1, Metric
from autoslim_cli.recipe.schema import ModelSettings, SpaceSettings, SupernetSettings

Score = dict[str, Annotated[float, Field(allow_inf_nan=False)]]
"""A loss, the value of a metric, and what they cost, by name."""


def possible(figures: Score, metric: Metric) -> None:
    """Raise ValueError for figures of a network that no network has."""
    loss, value = figures.get("loss", 0.0), figures.get(metric.name, 0.0)
    if not metric.can_be(loss, value):
        raise ValueError(f"no network has a loss of {loss:g} and {metric.title} of {value:g}")
    free = ("loss", metric.name, f"uncalibrated_{metric.name}")
    if negative := [name for name, number in figures.items() if number < 0 and name not in free]:
        raise ValueError(f"{negative[0]} is below zero")


class _Facts(BaseModel):
    """Base of all: facts that only some readers know may stand beside."""

    model_config = ConfigDict(frozen=True, strict=True)


class Origin(_Facts):
    """What a checkpoint was made from: `files/provenance.py`."""

    recipe: dict[str, Any] = Field(
        description="The sections of the recipe that decided, of some one key alone, and its seed"
    )
    contents: dict[str, str] = Field(description="Digests of what names in the recipe stood for")
    parents: dict[str, str] = Field(description="sha256 of what it was made from, by name, or by path if two share one")
    versions: dict[str, str] = Field(default={}, description="Of autoslim, torch and Python; decides nothing")

    @model_validator(mode="after")
    def _sections(self) -> Self:
        if not isinstance(self.recipe.get("seed"), int):
            raise ValueError("recipe.seed is no number")
        if odd := [name for name, section in self.recipe.items() if name != "seed" and not isinstance(section, dict)]:
            raise ValueError(f"recipe.{odd[0]} is no section")
        return self


class LearnedFrom(_Facts):
    """The images that a network learned from: which output is which class, and how pixels become inputs."""

    class_names: list[str] = Field(
        default=[],
        description="In the order of the outputs, or labels; none where the data does not tell, or of more than 32,768",
    )
    mean: list[float] | None = Field(
        default=None,
        description="What pixels in [0, 1] are less, for each channel or for all; none: inputs are as a data set of "
        "one's own gives them",
    )
    std: list[float] | None = Field(default=None, description="What they are then divided by")


class ModelFacts(_Facts):
    """A plain network: a channel config, and what was measured of it."""

    config: dict[str, Any] = Field(description="Its channel config")
    made_from: Origin
    learned_from: LearnedFrom | None = Field(
        default=None, description="Of which images; none in files of earlier versions"
    )
    test: Score | None = Field(default=None, description="Loss and score on the test set, of a retrained network")
    holdout: Score | None = Field(default=None, description="On the holdout, of a sub-network that was cut out")
    metric: Metric = Field(default=TOP1, description="What the score is")
    chosen_by: str | None = Field(
        default=None,
        description="Of a network that was made from a channel config: the strategy that found it, or `by hand`",
    )

    @model_validator(mode="after")
    def _scored(self) -> Self:
        for figures in (self.test, self.holdout):
            possible(figures or {}, self.metric)
        return self


class SupernetFacts(_Facts):
    """A supernet: its model and largest channels, its switches if it has any, and scores of some widths."""

    model: Annotated[ModelSettings, Field(strict=False)]
    channels: dict[str, int] = Field(description="The largest count of every unit")
    made_from: Origin
    learned_from: LearnedFrom | None = Field(
        default=None, description="Of which images; none in files of earlier versions"
    )
    switches: dict[str, dict[str, int]] = Field(default={}, description="Channels by switch, of `bn: switchable`")
    holdout: dict[str, Score] = Field(default={}, description="Scores of the largest, the base and the smallest width")
    metric: Metric = Field(default=TOP1, description="What the score is")

    @model_validator(mode="after")
    def _opens(self) -> Self:
        recipe, contents = self.made_from.recipe, self.made_from.contents
        if not ({"data", "space", "supernet"} <= recipe.keys() and {"images", "network"} <= contents.keys()):
            raise ValueError("made_from says no data, space, supernet, images or network")
        SpaceSettings.model_validate(recipe["space"])
        SupernetSettings.model_validate(recipe["supernet"])
        for figures in self.holdout.values():
            possible(figures, self.metric)
        return self
