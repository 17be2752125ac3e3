"""Sections of an experiment have strict types, and one kind of error for a user's mistake."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from simulator.experiment.spelling import (
    canonical_key,
    canonical_value,
    nearest_name,
    suggestion,
)

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
            super().__init__(**self.canonical(keys))
        except ValidationError as error:
            raise ExperimentError(self._explain(error)) from None

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other values, which are checked as those of a new one are."""
        given = {key: getattr(self, key) for key in self.model_fields_set}
        return type(self)(**(given | self.canonical(update or {})))

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        """Yield what was given: the rest has the defaults."""
        for key in type(self).model_fields:
            if key in self.model_fields_set:
                yield key, getattr(self, key)

    def __str__(self) -> str:
        return repr(self)

    @classmethod
    def canonical(cls, keys: Mapping[str, Any]) -> dict[str, Any]:
        """Return `keys` and their values in the spelling that this table knows.

        Raises:
            ExperimentError: one key is given twice, in different spellings.
        """
        result: dict[str, Any] = {}
        spelled: dict[str, str] = {}
        for given, value in keys.items():
            key = canonical_key(given, cls.model_fields)
            if key in result:
                raise ExperimentError(
                    f"{cls._full(given)}: {cls._full(spelled[key])} is given too, and means the "
                    "same; give one of them"
                )
            if isinstance(value, str) and key in cls.model_fields:
                value = canonical_value(key, value, cls._texts(key))
            result[key], spelled[key] = value, given
        return result

    @classmethod
    @cache
    def _texts(cls, key: str) -> tuple[str, ...]:
        """Return the texts that `key` may have, where its type lists them."""
        return tuple(_literals(cls.model_fields[key].annotation))

    @classmethod
    def _full(cls, key: str) -> str:
        return f"{cls.TABLE}.{key}" if cls.TABLE else key

    @classmethod
    def _explain(cls, error: ValidationError) -> str:
        """Return one line for the first mistake: key, value, what is allowed."""
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, ExperimentError):  # of a table within this one
            return str(cause)
        place = first["loc"]
        if place[0] in cls.model_fields and cls._texts(str(place[0])):
            place = place[:1]  # without which of its types is meant
        wrong = ".".join(str(part) for part in place)
        key = cls._full(wrong)
        if first["type"] == "extra_forbidden":
            return f"{key}: unknown key; {cls._elsewhere(wrong)}known here: " + ", ".join(
                cls.model_fields
            )
        value = first["input"]
        if first["type"] in ("model_type", "dict_type", "model_attributes_type"):
            return f"{key} = {value!r}: expected a table [{key}]"
        known = cls._texts(wrong) if wrong in cls.model_fields else ()
        hint = suggestion(value, known) if isinstance(value, str) else ""
        limits = _limits(cls.model_fields[wrong]) if wrong in cls.model_fields else {}
        texts = "" if first["type"] == "literal_error" else "".join(f"{t!r}, or " for t in known)
        return f"{key} = {value!r}: {hint}allowed: {texts}{allowed(first, limits)}"

    @classmethod
    def _elsewhere(cls, wrong: str) -> str:
        """Return ``did you mean …? ``, a key of this table or, where none is near, of another."""
        tables = [cls, *(table for table in Section.__subclasses__() if table is not cls)]
        for table in tables:
            if (near := nearest_name(wrong, table.model_fields)) is not None:
                return f"did you mean {near if table is cls else table._full(near)}? "
        return ""


def allowed(error: ErrorDetails, limits: Mapping[str, float]) -> str:
    """Return what a key takes that got the wrong value, in plain words.

    Args:
        error: of pydantic.
        limits: of the key, see `_limits`; where it has both, both are said, whatever is wrong.
    """
    limits = {**limits, **error.get("ctx", {})}
    between = f"{limits['ge']:g} to {limits['le']:g}" if {"ge", "le"} <= limits.keys() else ""
    if isinstance(error.get("input"), float) and math.isnan(error["input"]):
        return _TYPES["finite"]
    match error["type"]:
        case "greater_than_equal" | "less_than_equal" if between:
            return between
        case "int_type" | "int_from_float" if between:
            return f"a whole number, {between}"
        case "greater_than_equal":
            return f"{limits['ge']:g} or more"
        case "greater_than":
            return f"more than {limits['gt']:g}"
        case "less_than_equal":
            return f"{limits['le']:g} or less"
        case "less_than":
            return f"less than {limits['lt']:g}"
        case "literal_error":
            return str(limits["expected"])
        case kind:
            return _TYPES.get(kind.partition("_")[0]) or error["msg"]


_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list, in brackets",
}
"""Names of what is allowed, by the first word of the type of pydantic's error."""


def _limits(field: FieldInfo) -> dict[str, float]:
    """Return the least and the largest value of a key, ``ge`` and ``le``, where it has them."""
    limits = [*field.metadata]
    for inner in get_args(field.annotation):  # of a key that may be left out
        limits.extend(
            limit
            for metadata in getattr(inner, "__metadata__", ())
            for limit in getattr(metadata, "metadata", ())
        )
    return {
        name: getattr(limit, name)
        for limit in limits
        for name in ("ge", "le")
        if hasattr(limit, name)
    }


def _literals(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from (text for text in get_args(annotation) if isinstance(text, str))
    else:
        for inner in get_args(annotation):
            yield from _literals(inner)
