"""Say what the network is for."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from autoslim_cli.recipe.schema.bounds import Args, AtMost, Settings

TASKS = ("classification", "segmentation", "super-resolution", "multi-label", "detection")


class TaskSettings(Settings):
    """Say what the network is for: its loss, what smaller sub-networks learn from the largest, and its score."""

    name: str = Field(
        default="classification",
        description="`classification` (top-1), `segmentation` (mean IoU), `super-resolution` (PSNR), `multi-label` "
        "(F1), `detection` (AP of boxes), or your own: `./task.py:factory` (relative to the recipe) or "
        "`package.module:factory`",
    )
    args: Args = Field(default_factory=dict, description="Keyword arguments of your own task's factory")
    ignore_index: Annotated[int, Field(ge=0), AtMost(255, "masks have 8 bits")] | None = Field(
        default=None, description="Of `segmentation`: the value of mask pixels that do not count, 255 by default"
    )
    scale: Annotated[int, Field(ge=2), AtMost(16, "an output has its square of an input's pixels")] | None = Field(
        default=None,
        description="Of `super-resolution`: by how much model.input is enlarged, 2 by default. Images are reduced by "
        "it, bicubically, to be a network's input",
    )
    distill: Literal["l1", "l2"] | None = Field(
        default=None,
        description="Of `super-resolution`: how a smaller sub-network's output is held against the largest one's, "
        "`l2` by default",
    )
    metric: Literal["ap", "ap50"] | None = Field(
        default=None,
        description="Of `detection`: `ap`, the mean over IoU of 0.5 to 0.95, as COCO has it, or `ap50`, at an IoU of "
        "0.5; `ap` by default",
    )

    @property
    def is_own(self) -> bool:
        """Tell whether it is the user's own."""
        return self.name not in TASKS

    @property
    def of_boxes(self) -> bool:
        """Tell whether each image has any number of objects, in a box each, and may be of any size."""
        return self.name == "detection"

    @property
    def ignored(self) -> int:
        """Return the value of mask pixels that do not count."""
        return 255 if self.ignore_index is None else self.ignore_index

    @property
    def enlarges(self) -> int:
        """Return how many times higher and wider the targets are than the inputs."""
        return (self.scale or 2) if self.name == "super-resolution" else 1

    @model_validator(mode="after")
    def _read(self) -> Self:
        if self.name not in TASKS and ":" not in self.name:
            raise ValueError(f"name: {', '.join(TASKS)}, or your own as ./task.py:factory")
        for keys, name in (
            (("ignore_index",), "segmentation"),
            (("scale", "distill"), "super-resolution"),
            (("metric",), "detection"),
        ):
            for key in keys:
                if getattr(self, key) is not None and self.name != name:
                    raise ValueError(f"{key} is of task.name: {name}")
        if self.args and not self.is_own:
            raise ValueError("args are those of your own task's factory")
        return self
