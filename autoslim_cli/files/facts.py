"""Say what the facts of a checkpoint must be: readers may rely on what was checked here."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from autoslim_cli.recipe.schema import ModelSettings, SpaceSettings, SupernetSettings

MOST_LOSS = 1e6
"""Nats beyond which no mean cross-entropy is believed: logits a million apart are those of a network that diverged."""

Loss = Annotated[float, Field(strict=True, ge=0, le=MOST_LOSS, allow_inf_nan=False)]
Top1 = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]


def _possible(figures: dict[str, float]) -> dict[str, float]:
    """Return figures of a network. Raises ValueError for a fraction above one."""
    for name, value in figures.items():
        if name.endswith("top1") and value > 1:
            raise ValueError(f"{name} is a fraction of the images")
    return figures


Score = Annotated[dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]], AfterValidator(_possible)]
"""A loss, top-1, and what they cost, by name."""


class _Facts(BaseModel):
    """Base of all: facts that only some readers know may stand beside."""

    model_config = ConfigDict(frozen=True, strict=True)


class Origin(_Facts):
    """What a checkpoint was made from: `files/provenance.py`."""

    recipe: dict[str, Any] = Field(description="The sections of the recipe that decided, and its seed")
    contents: dict[str, str] = Field(description="Digests of what names in the recipe stood for")
    parents: dict[str, str] = Field(description="sha256 of the files that it was made from, by name")
    versions: dict[str, str] = Field(default={}, description="Of autoslim, torch and Python; decides nothing")

    @model_validator(mode="after")
    def _sections(self) -> Self:
        if not isinstance(self.recipe.get("seed"), int):
            raise ValueError("recipe.seed is no number")
        if odd := [name for name, section in self.recipe.items() if name != "seed" and not isinstance(section, dict)]:
            raise ValueError(f"recipe.{odd[0]} is no section")
        return self


class ModelFacts(_Facts):
    """A plain network: a channel config, and what was measured of it."""

    config: dict[str, Any] = Field(description="Its channel config")
    made_from: Origin
    test: Score | None = Field(default=None, description="Loss and top-1 on the test set, of a retrained network")
    holdout: Score | None = Field(default=None, description="On the holdout, of a sub-network that was cut out")


class SupernetFacts(_Facts):
    """A supernet: its model and largest channels, its switches if it has any, and scores of some widths."""

    model: Annotated[ModelSettings, Field(strict=False)]
    channels: dict[str, int] = Field(description="The largest count of every unit")
    made_from: Origin
    switches: dict[str, dict[str, int]] = Field(default={}, description="Channels by switch, of `bn: switchable`")
    holdout: dict[str, Score] = Field(default={}, description="Scores of the largest, the base and the smallest width")

    @model_validator(mode="after")
    def _opens(self) -> Self:
        recipe, contents = self.made_from.recipe, self.made_from.contents
        if not ({"data", "space", "supernet"} <= recipe.keys() and {"images", "network"} <= contents.keys()):
            raise ValueError("made_from says no data, space, supernet, images or network")
        SpaceSettings.model_validate(recipe["space"])
        SupernetSettings.model_validate(recipe["supernet"])
        return self
