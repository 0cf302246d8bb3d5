"""Say which network is slimmed."""

from typing import Annotated, Self

from pydantic import Field

from autoslim_cli.recipe.schema.bounds import LONGEST_SIDE, Args, AtMost, Classes, Settings, Side


class ModelSettings(Settings):
    """Say which network is slimmed, at its base width."""

    name: str = Field(
        description="`torchvision/NAME`, `timm/NAME`, `autoslim/NAME` (built in), `package.module:factory` "
        "or `./net.py:factory` (relative to the recipe)"
    )
    args: Args = Field(default_factory=dict, description="Keyword arguments of the factory")
    input: tuple[Side, Side, Side] = Field(description="Channels, height and width of one image")
    classes: Classes | None = Field(
        default=None,
        description="Number of classes, or of labels, given to the factory as `num_classes`; left out where a task has "
        "none",
    )
    strides: dict[str, Annotated[int, Field(gt=0), AtMost(LONGEST_SIDE, "no image is larger")]] = Field(
        default_factory=dict, description="Strides by layer name, set after building: for small images"
    )

    inputs: tuple[tuple[Side, ...], ...] = Field(
        default=(), description="Shapes of further tensors that the network takes behind the image, without the batch"
    )
    trace: str = Field(
        default="",
        description="The part of a larger network that is read and slimmed, by its name, as `backbone` of a detector; "
        "what it gives to the rest keeps its channels, and FLOPs are those of the part",
    )
    weights: str | None = Field(
        default=None,
        description="Trained weights that a supernet starts from: a name of torchvision's or timm's (DEFAULT, "
        "IMAGENET1K_V1, a1_in1k) or a file relative to the recipe: .safetensors, or what torch.save wrote, a state dict"
        " or a checkpoint that holds one; retraining starts from scratch all the same",
    )

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of all tensors that the network takes, for one image."""
        return (self.input, *self.inputs)

    @property
    def architecture(self) -> Self:
        """Return the model without the weights that it may start from: what a channel config belongs to."""
        return self.model_copy(update={"weights": None})
