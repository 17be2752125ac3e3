"""Words of the program language: texts of a fixed set, which are keys of many mappings."""

from __future__ import annotations

from enum import StrEnum


class Word(StrEnum):
    """A text of a fixed set, hashed as fast as any text: enumerations hash in Python."""

    __hash__ = str.__hash__
