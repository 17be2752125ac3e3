"""Sections of an experiment: strict types, and one error for a user's mistake."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
Degree = Annotated[int, Field(ge=1, le=65536)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ExperimentError(ValueError):
    """The user's experiment is wrong; the message is one line."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
