"""Say how channels are chosen."""

from typing import Annotated, Literal, Self

from pydantic import Field

from autoslim_cli.recipe.schema.bounds import _MEMORY, AtMost, Batch, Count, Epochs, Settings

Strategy = Literal["lazy", "exact", "paper", "magnitude", "random", "uniform"]


class SearchSettings(Settings):
    """Say how channels are chosen, and how candidates are scored."""

    strategy: Strategy = Field(
        default="lazy",
        description="`lazy`: score again only where the last scores promise little harm; `exact`: every candidate at "
        "every step; `paper`: exact, by the task's score, harm alone, nothing filled; `magnitude`: the "
        "smallest weights first, as pruning tools do; `random`: the best of `draws`; `uniform`: one width",
    )
    rivals: tuple[Strategy, ...] = Field(
        default=(),
        description="Strategies whose channels compete with those of `strategy`: each is trained for `trial_epochs` as "
        "`retrain` says, from what it starts from, and the best on the holdout is the answer",
    )
    trial_epochs: Epochs = Field(default=1, description="Epochs of each trial of `rivals`, on the training images")
    images: Count | None = Field(default=None, description="Holdout images per score; all of them by default")
    draw: Literal["fixed", "anew"] = Field(
        default="fixed", description="Score every step on the same `images`, or on others of the holdout at each step"
    )
    batch: Batch = Field(
        default=2048, ge=2, description="Most images in one forward: BN takes its batch statistics from them"
    )
    memory: Annotated[float, Field(gt=0), AtMost(2**16, _MEMORY)] = Field(
        default=4.0,
        description="GiB for the activations of one forward, the same on every machine: where they do not hold `batch` "
        "images, BN takes its statistics from smaller batches, and scores differ",
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32", description="Arithmetic of forward passes; losses are summed in double precision all the same"
    )
    score: str = Field(
        default="loss",
        description="What the least harmful candidate keeps best: `loss`, or the task's score under its name, as "
        "`top1`, `miou`, `psnr`, `f1`",
    )
    per_flop: bool = Field(
        default=True, description="Judge harm by what the candidate saves of the budgeted cost, not by itself"
    )
    refresh: Count = Field(default=20, description="`lazy`: score every candidate again after as many groups")
    screen: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.25, description="`lazy`: the share of `images` that a refresh scores on; it only tells where to look"
    )
    among: Annotated[float, Field(gt=0), AtMost(2**31 - 1, "no step has more candidates")] = Field(
        default=0.25,
        description="`lazy`: how many of the least harmful are scored again at a time; below 1: a share of all",
    )
    stride: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.1,
        description="`lazy`: a step takes a group from each unit that is next in turn, while they save no more than "
        "this share of the network's cost; 0: one unit",
    )
    draws: Annotated[int, Field(gt=0), AtMost(100_000, "each is scored")] = Field(
        default=100, description="`random`: how many channels are drawn for each budget"
    )
    pace: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="A step goes on shrinking its unit while it costs no more score than this; 0: one group",
    )
    fill: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.98,
        description="Give channels back until this share of a budget is used, where counts allow; 0: leave the room",
    )
    refine: Annotated[int, Field(ge=0), AtMost(100_000, "each scores many networks")] = Field(
        default=0, description="Most moves of a group from one unit to another, for each budget, while the score rises"
    )

    def as_published(self) -> Self:
        """Return the settings with what AutoSlim's section 3.2 says of them."""
        published = {"score": "score", "per_flop": False, "pace": 0.0, "fill": 0.0, "refine": 0}
        return self.model_copy(update=published)

    @property
    def fills(self) -> float:
        """Return the share of a budget that answers use, and so what they are compared with."""
        return self.as_published().fill if self.strategy == "paper" else self.fill
