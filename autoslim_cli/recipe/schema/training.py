"""Say how weights are trained, calibrated and scored."""

from os.path import normpath
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from autoslim_cli.recipe.schema.bounds import AtMost, Batch, Count, Epochs, Fraction, PositiveFloat, Settings

BASE_FILE = "model-base.safetensors"
"""What the section `base` makes, and `model.weights` names then."""


class TrainSettings(Settings):
    """Say how weights are trained. Whatever the optimizer, weight decay spares what the authors spare."""

    section: ClassVar[str] = "train"
    """The recipe's section of these settings, by which messages name them."""

    epochs: Epochs = Field(description="Passes over the training images")
    batch: Batch = Field(default=256, description="Images of one optimizer step, of all processes together")
    micro_batch: Batch | None = Field(
        default=None,
        description="Most images of one forward pass, whose gradients add up to the batch's; BN takes its statistics "
        "from them. By default a process's whole share of the batch",
    )
    activation_checkpointing: bool = Field(
        default=False,
        description="Keep of a network's blocks their inputs alone, and compute the rest anew in backward passes: the "
        "same weights, in less memory and a third more time or so",
    )
    optimizer: Literal["sgd", "adamw"] = Field(default="sgd", description="`adamw` wants a far lower rate, as 0.001")
    lr: PositiveFloat = Field(default=0.1, description="Learning rate at its peak")
    momentum: Fraction = Field(default=0.9, description="Of `sgd`")
    nesterov: bool = Field(default=True, description="Of `sgd`")
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        default=1e-4, description="On dense convolution and linear weights only: none on depthwise, BN and bias"
    )
    schedule: Literal["linear", "cosine", "step", "one-cycle"] = Field(
        default="linear",
        description="Learning rate per iteration; `one-cycle` rises by a cosine over `warmup`, usually 0.3",
    )
    milestones: tuple[Fraction, ...] = Field(
        default=(0.3, 0.6, 0.9), description="Fractions of the run at which `schedule: step` divides the rate by ten"
    )
    warmup: Fraction = Field(default=0.0, description="Fraction of the run over which the rate rises linearly")
    label_smoothing: Fraction = Field(
        default=0.0, description="Of the labels; what smaller sub-networks learn from the largest is not smoothed"
    )
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="Decay of an exponential moving average of the weights, as 0.999: they are what is scored and "
        "kept. At step n the decay is (1 + n) / (10 + n) at most, so that initial weights are soon forgotten",
    )
    keep: Literal["last", "best"] = Field(
        default="last",
        description="The weights that a training ends with: of the last epoch, or of that with the lowest holdout loss",
    )
    patience: Count | None = Field(
        default=None, description="End after as many epochs in a row without a lower holdout loss"
    )
    clip: PositiveFloat | None = Field(default=None, description="Largest norm of the gradient")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32",
        description="Arithmetic of forward passes, and so of backward ones; `fp16` scales the loss. Weights are fp32",
    )
    save_minutes: Annotated[float, Field(gt=0), AtMost(10_080, "a week of work would be lost")] = Field(
        default=10.0, description="Minutes between saved training states within an epoch"
    )
    save_steps: Count | None = Field(
        default=None, description="Steps between saved training states, beside those of `save_minutes`"
    )
    keep_states: Annotated[int, Field(gt=0), AtMost(100, "each is a file of the weights and more")] = Field(
        default=1, description="Saved states that are kept while it trains: the last, and older ones as resume-1, ..."
    )

    @property
    def validates(self) -> bool:
        """Tell whether the holdout's loss after each epoch decides what a training ends with."""
        return self.keep == "best" or self.patience is not None

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.schedule == "one-cycle" and not self.warmup:
            raise ValueError("schedule: one-cycle rises over `warmup`, a fraction of the run: set it, usual is 0.3")
        return self


class RetrainSettings(TrainSettings):
    """Say how found networks are trained, and how their training ends.

    They train on all training images, the holdout's among them, unless its loss decides: with `keep: best` or
    `patience` they train without it.
    """

    section: ClassVar[str] = "retrain"

    calibrate: Literal["auto", True, False] = Field(
        default="auto",
        description="End by measuring BN statistics exactly, as `calibrate` says; `auto`: where running averages would "
        "keep more than 1 % of their initial values, and after `ema`",
    )
    start: str = Field(
        default="scratch",
        description="What a network starts from: `scratch`; `supernet`, its weights there; `weights`, those of "
        "model.weights, the most important channels first; or a checkpoint of this very network, relative to the "
        "recipe",
    )
    teacher: str = Field(
        default="none",
        description="Whose outputs it learns from beside the labels: `none`; `supernet`, at its largest; `weights`, "
        "the base network with those of model.weights; a model-*.safetensors, relative to the recipe; or weights of a "
        "library: `DEFAULT` for the recipe's own network, `timm/resnet50` or `torchvision/resnet50:IMAGENET1K_V2` for "
        "another. It must be better than its student",
    )
    teacher_weight: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.5, description="The teacher's share of the loss; the labels have the rest"
    )
    temperature: PositiveFloat = Field(default=1.0, description="What both networks' logits are divided by to learn")
    distill: bool = Field(
        default=False, description="With --joint: the largest network teaches the others, and alone learns from labels"
    )

    @property
    def spares_holdout(self) -> bool:
        """Tell whether the training does without the images of the holdout."""
        return self.validates


class BaseSettings(RetrainSettings):
    """Say how the base network is trained that the supernet starts from: `train-base` does it, and `run`, first.

    It trains without the holdout, on which channels are scored later. Where there is no such section, the supernet
    starts from model.weights, or from nothing. `distill` has no use here.
    """

    section: ClassVar[str] = "base"

    start: str = Field(
        default="scratch",
        description="What the base network starts from: `scratch`, or what model.weights takes, which is left out "
        "then: a name of torchvision's or timm's, or a file relative to the recipe",
    )

    @property
    def spares_holdout(self) -> bool:
        """Tell whether the training does without the images of the holdout: always."""
        return True

    @model_validator(mode="after")
    def _comes_first(self) -> Self:
        for key in ("start", "teacher"):
            if normpath(name := getattr(self, key)) in ("supernet", "weights", BASE_FILE):
                raise ValueError(
                    f"{key}: {name} is what comes of the base network; name a file, or a library's weights"
                )
        if self.distill:
            raise ValueError("distill: networks that are trained jointly teach each other, and this is one")
        return self


class CalibrateSettings(Settings):
    """Say how many training images measure the BN statistics of a sub-network."""

    images: Count = Field(default=5120, description="Training images, without variation")
    batch: Batch = Field(default=1024, description="Images in one forward; every batch has equal weight")


class EvaluateSettings(Settings):
    """Say how networks are measured.

    `images` changes a supernet whose training goes by the holdout's loss, with `train.keep: best` or `train.patience`;
    no other setting here changes a network.
    """

    batch: Batch = Field(default=512, description="Images in one forward")
    images: Count = Field(
        default=2048,
        description="Holdout images that score a supernet after each epoch, kept decoded; at its end all of them do",
    )
