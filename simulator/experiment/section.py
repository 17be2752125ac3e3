"""Sections of an experiment have strict types, and one kind of error for a user's mistake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Positive = Annotated[int, Field(ge=1)]
Degree = Annotated[int, Field(ge=1, le=65536)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ExperimentError(ValueError):
    """The user's experiment is wrong; the message is one line."""


class Section(BaseModel):
    """A frozen table of typed keys; however it is made, a mistake is an `ExperimentError`.

    Attributes:
        TABLE: name of the table in an experiment file; empty for the whole file.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    TABLE: ClassVar[str] = ""

    def __init__(self, /, **keys: Any):
        try:
            super().__init__(**keys)
        except ValidationError as error:
            raise ExperimentError(self._explain(error)) from None

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other values, which are checked as those of a new one are."""
        given = {key: getattr(self, key) for key in self.model_fields_set}
        return type(self)(**(given | dict(update or {})))

    @classmethod
    def _explain(cls, error: ValidationError) -> str:
        """Return one line for the first mistake: key, value, what is allowed."""
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, ExperimentError):  # of a table within this one
            return str(cause)
        key = ".".join(str(part) for part in (cls.TABLE, *first["loc"]) if part != "")
        if first["type"] == "extra_forbidden":
            return f"{key}: unknown key; known here: {', '.join(cls.model_fields)}"
        if first["type"] in ("model_type", "dict_type", "model_attributes_type"):
            return f"{key} = {first['input']!r}: expected a table [{key}]"
        allowed = (
            first["msg"]
            .replace("Input should be", "allowed:")
            .replace("a valid tuple", "a valid list")
            .replace("Input should", "allowed: should")
        )
        return f"{key} = {first['input']!r}: {allowed}"
