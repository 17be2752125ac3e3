"""Reading a cluster file: TOML, strictly checked, with one line for what is wrong.

Presets and users' files have the same format; ``docs/clusters.md`` is the reference.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from simulator.cluster.file_checks import contradictions
from simulator.cluster.tables import NAMED_TABLES, TABLES, ClusterFile
from simulator.experiment.section import ExperimentError


def read_cluster(path: str | Path) -> ClusterFile:
    """Return the cluster file at `path`; a byte order mark is allowed.

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
    return parse_cluster(data, where)


def parse_cluster(data: dict[str, Any], where: str) -> ClusterFile:
    """Return the checked tables of a cluster file; `where` names it in messages.

    Raises:
        ExperimentError: one line: file, place, what is allowed; all missing keys at once.
    """
    try:
        found = ClusterFile.model_validate(data)
    except ValidationError as error:
        raise ExperimentError(f"{where}: {_explain(error)}") from None
    for problem in contradictions(found):
        raise ExperimentError(f"{where}: {problem}")
    return found


def _explain(error: ValidationError) -> str:
    """Return the first mistake, as place, value and what is allowed, or all missing keys."""
    errors = error.errors()  # a misspelt key is missing under its right name, too
    missing = [e for e in errors if e["type"] == "missing"]
    unknown = [e for e in errors if e["type"] == "extra_forbidden"]
    first = next(iter([*unknown, *missing, *errors]))
    place = _place(first["loc"])
    if first["type"] == "missing":
        if len(missing) == 1:
            return f"{place}: missing"
        return f"missing: {', '.join(_place(e['loc']) for e in missing)}"
    if first["type"] == "extra_forbidden":
        return f"{place}: unknown key; known here: {', '.join(_keys_at(first['loc'][:-1]))}"
    if first["type"] in ("model_type", "dict_type", "model_attributes_type"):
        return f"{place} = {first['input']!r}: expected a table [{place}]"
    allowed = first["msg"].replace("Input should be", "allowed:").replace("Input should", "should")
    shown = first["input"] if isinstance(first["input"], (int, float, str)) else "…"
    return f"{place} = {shown!r}: {allowed}"


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
