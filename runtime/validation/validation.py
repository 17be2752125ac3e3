"""``twinline validate``: predict and run every case of a suite, and sum the errors up.

Every case is kept in ``cases.jsonl`` as soon as it is done; a second call with the same
folder goes on with the cases that are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from runtime.execution import comparing
from runtime.launch.launcher import LaunchError, OnProgress, Workers
from runtime.validation.kept import Row, append, finished, identity, this_host
from runtime.validation.suite_case import SuiteCase
from simulator.experiment.describe import describe_plan
from simulator.experiment.section import ExperimentError

OnCase = Callable[[Row], None]
"""Called with the row of every case when it is done."""

TARGETS = (
    ("1 rank", "median_abs_error", 0.03),
    ("2 ranks", "median_abs_error", 0.03),
    ("2 ranks", "p90_abs_error", 0.08),
    ("4 ranks", "median_abs_error", 0.05),
    ("paced", "median_abs_error", 0.01),
    ("all", "mean_start_error", 0.03),
    ("all", "worst_memory_error", 0.02),
)
"""Each target: a group of cases, a figure of its summary, and the largest value allowed."""


@dataclass
class Validation:
    """The result of `validate_suite`.

    Attributes:
        rows: the cases in the order of the suite, finished or failed.
        resumed: how many of them an earlier call had done.
    """

    rows: list[Row] = field(default_factory=list)
    resumed: int = 0

    @property
    def done(self) -> list[Row]:
        """The cases that were predicted and run."""
        return [row for row in self.rows if row["failure"] is None]

    @property
    def failed(self) -> list[Row]:
        """The cases that failed."""
        return [row for row in self.rows if row["failure"] is not None]

    def _of(self, group: str) -> list[Row]:
        return [row for row in self.done if group in ("all", row["group"])]

    def summary(self, group: str = "all") -> dict[str, Any]:
        """Return the figures over the cases of a group; all are None if it has no case."""
        rows = self._of(group)
        errors = np.array([abs(row["error"]) for row in rows])
        if not rows:
            return {"cases": 0} | dict.fromkeys(STATISTICS)
        return {
            "cases": len(rows),
            "median_abs_error": float(np.median(errors)),
            "p90_abs_error": float(np.percentile(errors, 90)),
            "below_noise_floor": sum(abs(row["error"]) < row["noise_floor"] for row in rows),
            "mean_start_error": float(np.mean([row["instruction_start_error"] for row in rows])),
            "worst_memory_error": float(max(abs(row["peak_memory_error"]) for row in rows)),
        }

    def groups(self) -> dict[str, dict[str, Any]]:
        """Return the summary of every group that has a finished case."""
        names = dict.fromkeys(row["group"] for row in self.done)
        return {name: self.summary(name) for name in names}

    def targets(self) -> list[dict[str, Any]]:
        """Return every target with the value found; ``met`` is None if its group has no case.

        Targets for errors of the iteration time also say how many cases are within the limit or,
        where that is higher, their noise floor.
        """
        found = []
        for group, figure, limit in TARGETS:
            value = self.summary(group)[figure]
            met = None if value is None else value <= limit
            target = {"group": group, "figure": figure, "limit": limit, "value": value, "met": met}
            if figure.endswith("abs_error"):
                target["within_or_noise"] = sum(
                    abs(row["error"]) <= max(limit, row["noise_floor"]) for row in self._of(group)
                )
            found.append(target)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that ``twinline validate --json`` prints."""
        everything = self.summary()
        return {
            "cases": self.rows,
            **{name: value for name, value in everything.items() if name != "cases"},
            "failed": len(self.failed),
            "groups": self.groups(),
            "targets": self.targets(),
        }


STATISTICS = (
    "median_abs_error",
    "p90_abs_error",
    "below_noise_floor",
    "mean_start_error",
    "worst_memory_error",
)


def validate_suite(
    cases: Sequence[SuiteCase],
    folder: Path,
    on_case: OnCase | None = None,
    on_progress: OnProgress | None = None,
    workers: Workers | None = None,
) -> Validation:
    """Predict and run `cases` (see `suite.cases_of`) that `folder` does not have yet.

    No prediction uses the run it is compared with: passes and transfers are calibrated in
    turn with the measured steps, on the same machine, and the steps are no part of it.

    Args:
        cases: the cases, in the order of the result.
        folder: keeps ``cases.jsonl`` and ``profile.json``; created if it does not exist.
        on_case: called with the row of every case when it is done or has failed.
        on_progress: called with the share of all work that is done, 0 to 1, and the current step.
        workers: processes to use for all cases; None: new ones for each number of ranks.

    Raises:
        ExperimentError: the folder cannot be used, or has cases of another machine.
    """
    tell = on_progress or (lambda share, what: None)
    names = [identity(case) for case in cases]
    known = finished(folder)
    found = Validation(resumed=sum(name in known for name in names))
    with _Pool(workers) as pool:
        for number, (case, name) in enumerate(zip(cases, names, strict=True)):
            if name in known:
                found.rows.append(known[name])
                continue

            def report(
                share: float, what: str, number: int = number, name: str = case.name
            ) -> None:
                tell((number + share) / len(cases), f"{number + 1}/{len(cases)} {name} {what}")

            report(0.0, "starting")
            row = {"id": name, "machine": this_host()} | _measured(case, pool, folder, report)
            append(folder, row)
            found.rows.append(row)
            if on_case:
                on_case(row)
    return found


def _measured(case: SuiteCase, pool: _Pool, folder: Path, report: OnProgress) -> Row:
    row: Row = {
        "strategy": case.strategy,
        "family": case.family,
        "size": case.size,
        "ranks": case.ranks,
        "group": case.group,
        "plan": describe_plan(case.experiment),
        "failure": None,
    }
    try:
        workers = pool.of(case.ranks)
        outcome = comparing.compare(case.experiment, report, workers, folder / "profile.json")
    except (ExperimentError, LaunchError) as error:
        pool.drop()
        return row | {"failure": str(error)}
    found = outcome.comparison.to_json()
    return row | {
        "predicted_s": outcome.prediction.iteration_time_s,
        "measured_s": outcome.execution.iteration_time_s,
        "error": found.pop("iteration_time_error"),
        **found,
        "pacing": outcome.execution.to_json().get("pacing"),
        "program": outcome.execution.program.hash(),
        "notes": [*outcome.prediction.notes, *outcome.notes],
    }


class _Pool:
    """The processes for one number of ranks, which take one case after the other."""

    def __init__(self, given: Workers | None):
        self._given = given
        self._own: Workers | None = None

    def of(self, ranks: int) -> Workers:
        if self._given is not None:
            return self._given
        if self._own is None or self._own.num_ranks != ranks:
            self.drop()
            self._own = Workers(ranks)
        return self._own

    def drop(self) -> None:
        """Give the processes up: after a failure they are gone, and the next case gets new ones."""
        self._given = None
        if self._own is not None:
            self._own.close()
            self._own = None

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._own is not None:
            self._own.close()
