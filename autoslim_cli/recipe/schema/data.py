"""Say where images come from, and how they are varied."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from autoslim_cli.recipe.schema.bounds import Args, AtMost, Count, Gibibytes, PositiveFloat, Settings, Strength


class AugmentSettings(Settings):
    """Say how training images are varied; every image draws for itself."""

    crop: Literal["none", "pad", "resized", "random"] = Field(
        default="none",
        description="`pad`: random crop after zero padding; `resized`: RandomResizedCrop, and `random`: RandomCrop, of "
        "the files' own pixels",
    )
    padding: Annotated[int, Field(ge=0), AtMost(512, "images are padded in memory, a batch at a time")] = Field(
        default=4, description="Pixels on each side, for `crop: pad`"
    )
    flip: bool = Field(default=False, description="Mirror half of the images")
    scale: tuple[PositiveFloat, PositiveFloat] = Field(default=(0.25, 1.0), description="Area range of `crop: resized`")
    color_jitter: Strength | tuple[Strength, Strength, Strength] = Field(
        default=0.0,
        description="ColorJitter: brightness, contrast and saturation change by factors within 1 +- this; one number, "
        "or one for each",
    )
    lighting: Strength = Field(
        default=0.0,
        description="AlexNet's noise along the principal colours of ImageNet, as a deviation; usual is 0.1",
    )
    policy: Literal["none", "randaugment", "trivial"] = Field(
        default="none",
        description="torchvision's RandAugment or TrivialAugmentWide, one image at a time: for image folders with "
        "`crop: resized`, whose workers do it; elsewhere the main process does",
    )
    erase: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0, description="Share of the images of which a random rectangle is erased, as RandomErasing"
    )
    mixup: Strength = Field(
        default=0.0, description="MixUp of neighbours in a batch, by Beta(this, this); usual is 0.2"
    )
    cutmix: Strength = Field(
        default=0.0,
        description="CutMix, by Beta(this, this); usual is 1. With `mixup`, each batch draws one of the two",
    )

    @property
    def mixes(self) -> bool:
        """Tell whether images of a batch are mixed with each other."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def crops_files(self) -> bool:
        """Tell whether a crop is of the files' own pixels, not of fitted images."""
        return self.crop in ("resized", "random")

    @property
    def jitter(self) -> tuple[float, float, float]:
        """Return the strengths of brightness, contrast and saturation."""
        return self.color_jitter if isinstance(self.color_jitter, tuple) else (self.color_jitter,) * 3

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale {list(self.scale)} must rise, and end at 1 at most")
        return self


DOWNLOADED = ("cifar10", "cifar100", "fashion-mnist", "svhn")
ENCODED = ("image-folder", "image-shards", "hugging-face", "images", "image-masks", "image-labels")
DATA = ("digits", *DOWNLOADED, *ENCODED)


Values = tuple[float, ...]
"""One for each channel of an image, or one for all."""


def normalisation(mean: Values | None, std: Values | None, *, of_boxes: bool) -> tuple[Values, Values]:
    """Return what pixels in [0, 1] are less, and divided by, where a recipe says so or not.

    Detectors normalise images themselves. What is equal for all channels is one value.
    """
    usual = ((0.0,), (1.0,)) if of_boxes else ((0.5,), (0.5,))
    said = (tuple(values or none) for values, none in zip((mean, std), usual, strict=True))
    mean, std = (values[:1] if len(set(values)) == 1 else values for values in said)
    return mean, std


class DataSettings(Settings):
    """Say where the images come from and which of them are the holdout."""

    name: str = Field(
        description="Images with classes: `digits` (embedded), torchvision's `cifar10`, `cifar100`, `fashion-mnist` "
        "and `svhn`, `image-folder` (train/<class>/, and test/<class>/ or val/<class>/), `image-shards` (train*.tar, "
        "and test*.tar or val*.tar, as WebDataset writes them) and `hugging-face`; without: `images`; with masks: "
        "`image-masks`; with several labels each: `image-labels`; or a data set of your own: "
        "`./data.py:factory` (relative to the recipe) or `package.module:factory`"
    )
    args: Args = Field(
        default_factory=dict,
        description="Keyword arguments of your own data set's factory, or of Hugging Face's `load_dataset`; there, "
        "`image`, `label`, `train` and `test` name columns and splits where that is not clear",
    )
    path: str | None = Field(
        default=None,
        description="Directory of the data, relative to the recipe; `~` and `$VARIABLES` are expanded. For "
        "`hugging-face`: a name on its hub, or a directory",
    )
    download: bool = Field(default=True, description="Let torchvision download what is missing")
    holdout: Count = Field(description="Training images set aside by seed; every search score is measured on them")
    limit: Count | None = Field(default=None, description="Use this many training images, drawn by seed")
    mean: tuple[float, ...] | None = Field(
        default=None, description="Per-channel mean of pixels in [0, 1]; none: 0.5, in detection 0"
    )
    std: tuple[PositiveFloat, ...] | None = Field(
        default=None, description="Per-channel deviation of pixels in [0, 1]; none: 0.5, in detection 1"
    )
    augment: AugmentSettings = AugmentSettings()
    workers: Annotated[int, Field(ge=0), AtMost(4096, "one a core at most is started")] = Field(
        default=4,
        description="Processes that decode what is not kept in memory, one a core at most; 0: the main process does",
    )
    memory: Gibibytes = Field(
        default=2.0,
        description="GiB of images that a folder may keep in memory, decoded once; a larger one is decoded by "
        "workers each time, and so is `crop: resized`",
    )

    @property
    def is_own(self) -> bool:
        """Tell whether it is a data set of the user's own."""
        return self.name not in DATA

    @property
    def is_encoded(self) -> bool:
        """Tell whether images are files, which are decoded when they are asked for."""
        return self.name in ENCODED

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.is_own and ":" not in self.name:
            raise ValueError(f"name: {', '.join(DATA)}, or a data set of your own as ./data.py:factory")
        if self.is_own and self.augment != AugmentSettings():
            raise ValueError("augment: a data set of your own varies its images itself, where its part is train")
        if self.args and not (self.is_own or self.name == "hugging-face"):
            raise ValueError("args are those of your own data set's factory, or of Hugging Face's")
        return self
