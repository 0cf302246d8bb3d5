"""Define what a recipe may say: one frozen schema, checked before anything runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class AtMost:
    """Bound a number, and say why nothing larger has a use."""

    most: float
    why: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "maximum": self.most}

    def _checked(self, value: float) -> float:
        if value > self.most:
            raise ValueError(f"{self.most:,} at most ({self.why})")
        return value


_MEMORY = "no machine has more memory"

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
LONGEST_SIDE = 2**16
Side = Annotated[int, Field(gt=0), AtMost(LONGEST_SIDE, "no image is larger")]
Count = Annotated[int, Field(gt=0), AtMost(2**31 - 1, "no tensor has more")]
Batch = Annotated[int, Field(gt=0), AtMost(2**20, "no training gains from more images at once")]
Epochs = Annotated[int, Field(gt=0), AtMost(100_000, "the papers train for some hundred")]
Classes = Annotated[int, Field(gt=0), AtMost(2**20, "the last layer alone takes gigabytes")]
Width = Annotated[
    float, Field(gt=0), AtMost(4, "FLOPs and memory grow with its square; choose a wider base network instead")
]
Gibibytes = Annotated[float, Field(ge=0), AtMost(2**16, _MEMORY)]


class Settings(BaseModel):
    """Base of every section: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class ModelSettings(Settings):
    """Say which network is slimmed, at its base width."""

    name: str = Field(
        description="`torchvision/NAME`, `timm/NAME`, `autoslim/NAME` (built in), `package.module:factory` "
        "or `./net.py:factory` (relative to the recipe)"
    )
    args: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of the factory")
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


TASKS = ("classification", "segmentation", "super-resolution", "multi-label", "detection")


class TaskSettings(Settings):
    """Say what the network is for: its loss, what smaller sub-networks learn from the largest, and its score."""

    name: str = Field(
        default="classification",
        description="`classification` (top-1), `segmentation` (mean IoU), `super-resolution` (PSNR), `multi-label` "
        "(F1), `detection` (AP of boxes), or your own: `./task.py:factory` (relative to the recipe) or "
        "`package.module:factory`",
    )
    args: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of your own task's factory")
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


Strength = Annotated[float, Field(ge=0), AtMost(100, "nothing is left of an image")]


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


class DataSettings(Settings):
    """Say where the images come from and which of them are the holdout."""

    name: str = Field(
        description="Images with classes: `digits` (embedded), torchvision's `cifar10`, `cifar100`, `fashion-mnist` "
        "and `svhn`, `image-folder` (train/<class>/, and test/<class>/ or val/<class>/), `image-shards` (train*.tar, "
        "and test*.tar or val*.tar, as WebDataset writes them) and `hugging-face`; without: `images`; with masks: "
        "`image-masks`; with several labels each: `image-labels`; or a data set of your own: "
        "`./data.py:factory` (relative to the recipe) or `package.module:factory`"
    )
    args: dict[str, Any] = Field(
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


class SpaceSettings(Settings):
    """Say which channel counts a search may choose. Patterns (`*`, `?`) are of layer names; they steer whole units."""

    groups: Count | dict[str, Count] = Field(
        default=12, description="Slimming steps from a unit's largest count to zero, about; one number, or by pattern"
    )
    divisor: Count | dict[str, Count] = Field(
        default=8, description="Counts are multiples of this; one number, or by pattern"
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
        if not all(self.min_width <= width <= self.width for width in self.widths):
            raise ValueError(f"widths {list(self.widths)} must lie within {self.min_width} and {self.width}")
        return self


class TrainSettings(Settings):
    """Say how weights are trained. Whatever the optimizer, weight decay spares what the authors spare."""

    epochs: Epochs = Field(description="Passes over the training images")
    batch: Batch = Field(default=256, description="Images of one optimizer step, of all processes together")
    micro_batch: Batch | None = Field(
        default=None,
        description="Most images of one forward pass, whose gradients add up to the batch's; BN takes its statistics "
        "from them. By default a process's whole share of the batch",
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
        description="Whose outputs it learns from beside the labels: `none`; `supernet`, at its largest; a "
        "model-*.safetensors, relative to the recipe; or weights of a library: `DEFAULT` for the recipe's own network, "
        "`timm/resnet50` or `torchvision/resnet50:IMAGENET1K_V2` for another. It must be better than its student",
    )
    teacher_weight: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.5, description="The teacher's share of the loss; the labels have the rest"
    )
    temperature: PositiveFloat = Field(default=1.0, description="What both networks' logits are divided by to learn")
    distill: bool = Field(
        default=False, description="With --joint: the largest network teaches the others, and alone learns from labels"
    )


class CalibrateSettings(Settings):
    """Say how many training images measure the BN statistics of a sub-network."""

    images: Count = Field(default=5120, description="Training images, without variation")
    batch: Batch = Field(default=1024, description="Images in one forward; every batch has equal weight")


class EvaluateSettings(Settings):
    """Say how networks are measured. No setting here changes a network."""

    batch: Batch = Field(default=512, description="Images in one forward")
    images: Count = Field(
        default=2048,
        description="Holdout images that score a supernet after each epoch, kept decoded; at its end all of them do",
    )


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
        default=2048, description="Most images in one forward: BN takes its batch statistics from them"
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


_INDIFFERENT = {
    "data": ("workers", "memory", "download", "path"),
    "train": ("save_minutes", "keep_states"),
    "retrain": ("save_minutes", "keep_states"),
}


class Recipe(Settings):
    """Say everything that the stages need: the model, the data, and how each stage works."""

    format: Literal["autoslim.recipe/1"] = Field(default="autoslim.recipe/1", description="Of recipe.yaml itself")
    about: str = Field(default="", description="One line for `autoslim recipes list`")
    seed: Annotated[int, Field(ge=0), AtMost(2**63 - 1, "generators take 64 bits")] = Field(
        default=0, description="Of every random draw"
    )
    device: str = Field(default="auto", description="`auto`, `cpu`, `cuda`, `cuda:1`, `mps`")
    track: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Field(
        default=(), description="What else takes a training's metrics, beside its `.metrics.jsonl`"
    )
    model: ModelSettings
    task: TaskSettings = TaskSettings()
    data: DataSettings
    space: SpaceSettings = SpaceSettings()
    supernet: SupernetSettings = SupernetSettings()
    train: TrainSettings
    calibrate: CalibrateSettings = CalibrateSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    search: SearchSettings = SearchSettings()
    retrain: RetrainSettings

    @staticmethod
    def decisive(sections: Mapping[str, Any]) -> dict[str, Any]:
        """Return sections without the settings that cannot change a result: the rest tells what is current."""
        return {
            name: {key: value for key, value in section.items() if key not in _INDIFFERENT.get(name, ())}
            if isinstance(section, Mapping)
            else section
            for name, section in sections.items()
        }

    def sections(self, *names: str) -> dict[str, Any]:
        """Return the named sections as plain JSON values: what an artifact was made from."""
        return {name: self.model_dump(mode="json")[name] for name in names}
