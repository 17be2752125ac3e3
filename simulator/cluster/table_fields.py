"""The base of the tables of a cluster file, and the types of their values."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1, le=1 << 20)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]


class Table(BaseModel):
    """A table of a cluster file, in which unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
