"""Put the sections of a recipe together."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from autoslim_cli.recipe.schema.bounds import AtMost, Settings
from autoslim_cli.recipe.schema.data import DataSettings, normalisation
from autoslim_cli.recipe.schema.model import ModelSettings
from autoslim_cli.recipe.schema.search import SearchSettings
from autoslim_cli.recipe.schema.space import SpaceSettings, SupernetSettings
from autoslim_cli.recipe.schema.task import TaskSettings
from autoslim_cli.recipe.schema.training import (
    BASE_FILE,
    BaseSettings,
    CalibrateSettings,
    EvaluateSettings,
    RetrainSettings,
    TrainSettings,
)

_INDIFFERENT = {
    "data": ("workers", "memory", "download", "path"),
    **dict.fromkeys(
        ("base", "train", "retrain"), ("save_minutes", "save_steps", "keep_states", "activation_checkpointing")
    ),
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
    base: BaseSettings | None = None
    train: TrainSettings
    calibrate: CalibrateSettings = CalibrateSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    search: SearchSettings = SearchSettings()
    retrain: RetrainSettings

    @model_validator(mode="before")
    @classmethod
    def _starts_from_base(cls, values: Any) -> Any:
        """Let `model.weights` name what `base` makes."""
        if not isinstance(values, Mapping) or values.get("base") is None:
            return values
        model = values.get("model")
        if not isinstance(model, Mapping):
            return values  # which is refused
        if model.get("weights") not in (None, BASE_FILE):
            raise ValueError(
                f"base trains what the supernet starts from, and model.weights names {model['weights']}: leave one of "
                "them out; base.start is what the base network starts from"
            )
        return {**values, "model": {**model, "weights": BASE_FILE}}

    @staticmethod
    def decisive(sections: Mapping[str, Any]) -> dict[str, Any]:
        """Return sections without the settings that cannot change a result: the rest tells what is current.

        A normalisation that is left out, and one that says the same, are one.
        """
        kept = {
            name: {key: value for key, value in section.items() if key not in _INDIFFERENT.get(name, ())}
            if isinstance(section, Mapping)
            else section
            for name, section in sections.items()
        }
        return {**kept, **_normalised_alike(kept)}

    def sections(self, *names: str) -> dict[str, Any]:
        """Return the named sections as plain JSON values: what an artifact was made from.

        `evaluate.images` names one key of a section, which is returned without the others.
        """
        all_values, named = self.model_dump(mode="json"), dict[str, Any]()
        for name in names:
            section, _, key = name.partition(".")
            values = all_values[section]
            named[section] = {**named.get(section, {}), key: values[key]} if key else values
        return named


def _normalised_alike(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section `data` with what images are normalised by spelled out, if there is one."""
    data, task = sections.get("data"), sections.get("task")
    if not isinstance(data, Mapping) or not all(_is_values(data.get(key, 0)) for key in ("mean", "std")):
        return {}  # of a file that no recipe made, or of one key alone
    of_boxes = isinstance(task, Mapping) and task.get("name") == "detection"
    mean, std = normalisation(data["mean"], data["std"], of_boxes=of_boxes)
    return {"data": {**data, "mean": list(mean), "std": list(std)}}


def _is_values(said: object) -> bool:
    """Tell whether a mean or deviation is left out, or numbers."""
    return said is None or (isinstance(said, list | tuple) and all(isinstance(one, int | float) for one in said))
