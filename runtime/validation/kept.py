"""The finished cases of a suite, kept in a file so that an interrupted suite can go on."""

from __future__ import annotations

import hashlib
import json
import os
from importlib import metadata
from pathlib import Path
from typing import Any

from runtime import host
from runtime.validation.suite_case import SuiteCase
from simulator.experiment.section import ExperimentError

Row = dict[str, Any]
"""One case as JSON, see docs/json.md."""


def identity(case: SuiteCase) -> str:
    """Return a hash of a case and of the versions of this project and of torch.

    A result is used again only under the same hash.
    """
    versions = [_version("twinline"), _version("torch")]
    what = [case.name, case.experiment.model_dump(mode="json", exclude_unset=True), versions]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def finished(folder: Path) -> dict[str, Row]:
    """Return the cases in `folder` that did not fail, by `identity`.

    Raises:
        ExperimentError: the folder cannot be used, or has cases of another machine.
    """
    path = folder / "cases.jsonl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.touch()
        lines = path.read_text(encoding="utf-8").split("\n")
        if lines[-1]:  # a call was killed while it wrote
            path.write_text("\n".join([*lines[:-1], ""]), encoding="utf-8")
    except (FileExistsError, NotADirectoryError):
        raise ExperimentError(f"{folder}: is not a folder") from None
    except (OSError, ValueError) as error:
        raise ExperimentError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    here, rows = this_host(), {}
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
            name, there, failure = row["id"], row["machine"], row["failure"]
        except (ValueError, KeyError, TypeError):
            raise ExperimentError(f"{path}: line {number} is not a case; remove it") from None
        if there != here:
            raise ExperimentError(
                f"{path}: measured on {_describe(there)}, this is {_describe(here)}; give "
                "another folder with -o"
            )
        if failure is None:
            rows[name] = row
    return rows


def this_host() -> dict[str, Any]:
    """Return what tells hosts apart whose results may not be mixed."""
    return {"hostname": host.hostname(), "cores": host.cores()}


def _describe(there: Any) -> str:
    try:
        return f"{there['hostname']} with {there['cores']} cores"
    except (KeyError, TypeError):
        return "another machine"


def append(folder: Path, row: Row) -> None:
    """Write a row to disk at once, so that it is kept whatever happens next."""
    with (folder / "cases.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())
