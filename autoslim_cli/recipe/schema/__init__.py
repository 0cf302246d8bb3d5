"""Define what a recipe may say: one frozen schema, checked before anything runs."""

from autoslim_cli.recipe.schema.bounds import (
    LONGEST_SIDE,
    AtMost,
    Batch,
    Classes,
    Count,
    Epochs,
    Fraction,
    Gibibytes,
    Positive,
    PositiveFloat,
    Settings,
    Side,
    Strength,
    Width,
)
from autoslim_cli.recipe.schema.data import (
    DATA,
    DOWNLOADED,
    ENCODED,
    AugmentSettings,
    DataSettings,
    Values,
    normalisation,
)
from autoslim_cli.recipe.schema.model import ModelSettings
from autoslim_cli.recipe.schema.recipe import Recipe
from autoslim_cli.recipe.schema.search import SearchSettings, Strategy
from autoslim_cli.recipe.schema.space import SpaceSettings, SupernetSettings
from autoslim_cli.recipe.schema.task import TASKS, TaskSettings
from autoslim_cli.recipe.schema.training import (
    BASE_FILE,
    BaseSettings,
    CalibrateSettings,
    EvaluateSettings,
    RetrainSettings,
    TrainSettings,
)

__all__ = [
    "BASE_FILE",
    "DATA",
    "DOWNLOADED",
    "ENCODED",
    "LONGEST_SIDE",
    "TASKS",
    "AtMost",
    "AugmentSettings",
    "BaseSettings",
    "Batch",
    "CalibrateSettings",
    "Classes",
    "Count",
    "DataSettings",
    "Epochs",
    "EvaluateSettings",
    "Fraction",
    "Gibibytes",
    "ModelSettings",
    "Positive",
    "PositiveFloat",
    "Recipe",
    "RetrainSettings",
    "SearchSettings",
    "Settings",
    "Side",
    "SpaceSettings",
    "Strategy",
    "Strength",
    "SupernetSettings",
    "TaskSettings",
    "TrainSettings",
    "Values",
    "Width",
    "normalisation",
]
