"""Reading a cluster file: TOML, completed, strictly checked, with one line for what is wrong.

Presets and users' files have the same format, but presets say everything themselves;
``docs/clusters.md`` is the reference.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from simulator.cluster.completion import Completion, leaves
from simulator.cluster.file_checks import contradictions
from simulator.cluster.tables import NAMED_TABLES, TABLES, ClusterFile
from simulator.experiment.section import ExperimentError
from simulator.experiment.spelling import nearest_name


@dataclass(frozen=True)
class CheckedFile:
    """A cluster file that describes a machine.

    Attributes:
        tables: all of its tables.
        taken: where each key that the file does not say itself comes from, by its dotted name.
    """

    tables: ClusterFile
    taken: Mapping[str, str] = field(default_factory=dict)

    def keys(self) -> dict[str, Any]:
        """Return the value of every key that is said or taken, by its dotted name."""
        return leaves(self.tables.model_dump(exclude_unset=True), "")


def read_cluster(path: str | Path) -> CheckedFile:
    """Return the cluster file at `path`, completed; a byte order mark is allowed.

    Raises:
        ExperimentError: the file is unreadable, not TOML, or describes no machine; one line.
    """
    where = f"cluster.file = {str(path)!r}"
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ExperimentError(f"{where}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise ExperimentError(f"{where}: not TOML: {error}") from None
    found = Completion(data, Path(path).stem, where)
    return parse_cluster(found.tables, where, found.taken, found.needed)


def parse_cluster(
    data: dict[str, Any],
    where: str,
    taken: Mapping[str, str] | None = None,
    needed: Sequence[str] = (),
) -> CheckedFile:
    """Return the checked tables of a complete cluster file.

    Args:
        data: its tables.
        where: names the file in messages.
        taken: where the keys come from that the file did not say itself.
        needed: keys that are missing, besides those that the tables require.

    Raises:
        ExperimentError: one line: file, place, what is allowed; all missing keys at once.
    """
    try:
        found = ClusterFile.model_validate(data)
    except ValidationError as error:
        raise ExperimentError(f"{where}: {_explain(error, needed)}") from None
    if needed:
        raise ExperimentError(f"{where}: {_missing(needed)}")
    like = f" (what is not said is that of {found.like!r})" if found.like else ""
    for problem in contradictions(found):
        raise ExperimentError(f"{where}: {problem}{like}")
    return CheckedFile(found, taken or {})


NO_TABLE = ("model_type", "dict_type", "model_attributes_type")
"""Mistakes of pydantic that mean: there should be a table."""


def _explain(error: ValidationError, needed: Sequence[str]) -> str:
    """Return the first mistake, as place, value and what is allowed, or all missing keys."""
    errors = error.errors()  # a misspelt key is missing under its right name, too
    unknown = [e for e in errors if e["type"] == "extra_forbidden"]
    missing = [_place(e["loc"]) for e in errors if e["type"] == "missing"]
    wrong = [e for e in errors if e["type"] in (*NO_TABLE, "list_type", "literal_error")]
    if missing and not unknown and not wrong:  # after these, other keys may be missing
        return _missing([*missing, *needed])
    first = next(iter([*unknown, *wrong, *errors]))
    place = _place(first["loc"])
    if first["type"] == "extra_forbidden":
        known = _keys_at(first["loc"][:-1])
        near = nearest_name(str(first["loc"][-1]), known)
        hint = f"did you mean {near}? " if near else ""
        return f"{place}: unknown key; {hint}known here: {', '.join(known)}"
    if first["type"] == "list_type" and first["loc"][-1] in TABLES:
        return f"{place}: expected one table or more: [[{place}]]"
    if first["type"] in NO_TABLE:
        return f"{place} = {first['input']!r}: expected a table [{place}]"
    allowed = first["msg"].replace("Input should be", "allowed:").replace("Input should", "should")
    shown = first["input"] if isinstance(first["input"], (int, float, str)) else "…"
    return f"{place} = {shown!r}: {allowed}"


FOLLOWS = {"fp64": "fp32", "fp16": "bf16"}
"""Rates of a device that follow from another one where they are not said."""


def _missing(places: Sequence[str]) -> str:
    """Return the line that names missing keys, without those that follow from another one."""
    shown = []
    for place in places:
        table, _, key = place.rpartition(".")
        if f"{table}.{FOLLOWS.get(key)}" not in places:
            either = key == "bf16" and f"{table}.fp16" in places
            shown.append(f"{place} (or fp16)" if either else place)
    return f"{places[0]}: missing" if len(places) == 1 else f"missing: {', '.join(shown)}"


def _place(location: tuple[int | str, ...]) -> str:
    """Return the dotted name of a key."""
    return ".".join(str(part) for part in location if part != "[key]")


def _keys_at(place: tuple[int | str, ...]) -> list[str]:
    """Return the keys that are allowed in the table at `place`."""
    names = [part for part in place if isinstance(part, str)]
    if not names:
        return list(ClusterFile.model_fields)
    within = NAMED_TABLES.get(names[-2]) if len(names) > 1 else None
    return list((within or TABLES[names[-1]]).model_fields)
