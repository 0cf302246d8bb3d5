"""Bound what settings may be, with the reason, and forbid what is unknown."""

import math
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
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


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """Return values of which every number is finite: JSON, which files are written in, has no others."""
    left: list[Any] = [values]
    while left:
        one = left.pop()
        if isinstance(one, float) and not math.isfinite(one):
            raise ValueError(f"{one} cannot be written into a file: take a finite number")
        left += one.values() if isinstance(one, dict) else one if isinstance(one, list | tuple) else ()
    return values


Args = Annotated[dict[str, Any], AfterValidator(_finite)]
"""Keyword arguments of a factory."""

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


Strength = Annotated[float, Field(ge=0), AtMost(100, "nothing is left of an image")]
