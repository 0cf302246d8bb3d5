"""Say which sub-networks there are, and what a supernet is made of."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from autoslim_cli.recipe.schema.bounds import AtMost, Count, Settings, Width


class SpaceSettings(Settings):
    """Say which channel counts a search may choose. Patterns (`*`, `?`) are of layer names; they steer whole units."""

    groups: Count | dict[str, Count] = Field(
        default=12, description="Slimming steps from a unit's largest count to zero, about; one number, or by pattern"
    )
    divisor: Count | dict[str, Count] = Field(
        default=8,
        description="Counts are multiples of this, but for a base network's own; of a unit smaller than it, of a half "
        "of it or less; of groups, of whole groups. One number, or by pattern",
    )
    min: dict[str, Count] = Field(default_factory=dict, description="Smallest counts, by pattern")
    pin: tuple[str, ...] = Field(default=(), description="Patterns of units that stay at base width")
    tie: tuple[Annotated[tuple[str, ...], Field(min_length=1)], ...] = Field(
        default=(), description="Lists of patterns: the units of one list get equal counts"
    )


class SupernetSettings(Settings):
    """Say how wide the supernet is and which sub-networks train in each step."""

    width: Width = Field(default=1.5, description="Largest width, relative to the base network")
    min_width: Width = Field(default=0.15, description="Smallest width, relative to the base")
    samples: Annotated[int, Field(ge=2), AtMost(64, "each is a forward and a backward pass of every step")] = Field(
        default=4, description="Sub-networks per training step: the largest, the smallest and samples - 2 random ones"
    )
    sampling: Literal["per-unit", "budget", "uniform"] = Field(
        default="per-unit",
        description="Draw random channels for each unit alone; around one width whose FLOPs are even in the logarithm; "
        "or one width for all",
    )
    sort: bool = Field(
        default=True, description="With model.weights: order each unit's channels by importance, the best first"
    )
    sandwich: bool = Field(default=True, description="False draws all sub-networks at random: to measure the rule")
    draw_per_process: bool = Field(
        default=False,
        description="In a torchrun job each process trains random sub-networks of its own, not all the same",
    )
    bn: Literal["shared", "switchable"] = Field(
        default="shared",
        description="`shared`: any channels, BN calibrated afterwards; `switchable`: a private BN for each of `widths`",
    )
    widths: tuple[Width, ...] = Field(default=(), description="The switches of `bn: switchable`")
    distill: bool = Field(default=True, description="Inplace distillation: the largest sub-network teaches the others")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_width >= self.width:
            raise ValueError(f"min_width {self.min_width} must be below width {self.width}")
        if (self.bn == "switchable") != bool(self.widths):
            raise ValueError("widths belong to bn: switchable, which needs them, as [0.25, 0.5, 0.75, 1.0]")
        if self.draw_per_process and (self.bn == "switchable" or (self.sandwich and self.samples == 2)):
            raise ValueError(
                "draw_per_process is of random sub-networks, and none are drawn: set bn: shared, samples: 4"
            )
        if not all(self.min_width <= width <= self.width for width in self.widths):
            raise ValueError(f"widths {list(self.widths)} must lie within {self.min_width} and {self.width}")
        return self
