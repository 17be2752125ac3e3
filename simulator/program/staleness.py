"""Staleness: the number of updates between reading weights and applying their gradient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.program.batch import Batch
from simulator.program.columns import Columns
from simulator.program.operations import LAST_BACKWARDS, Op
from simulator.program.program import Program
from simulator.program.task import Task
from simulator.program.tensors import TensorName

UPDATES = frozenset({Op.OPTIMIZER_STEP, Op.BROADCAST})
"""Operations that replace weights: of a rank that updates them itself, or gets them from a server,
which has no passes, so that nothing is counted there."""
COUNTS = LAST_BACKWARDS | UPDATES | {Op.FORWARD}
"""Operations that read weights, or put gradients to them."""


DERIVED = ("mean_versions_behind", "histogram")
"""The keys of figures that follow from the others."""


@dataclass(frozen=True)
class StageStaleness:
    """The staleness of one stage, or of one worker: how old the weights of its gradients were.

    Attributes:
        stage: the number of the stage.
        max_versions_behind: the largest of `versions_behind`.
        versions_behind: per microbatch of all steps, updates between the weights its forward pass
            used and the update its gradient went into. Of a worker per push, between the
            parameters it had pulled last and that update; None: it was too late and was dropped.
        worker: the rank that pushed; None where ranks update with their own gradients.
        server: the rank to which it pushed; None where there is no worker.
    """

    stage: int
    max_versions_behind: int
    versions_behind: list[int | None]
    worker: int | None = None
    server: int | None = None

    @classmethod
    def of(
        cls,
        stage: int,
        behind: list[int | None],
        worker: int | None = None,
        server: int | None = None,
    ) -> StageStaleness:
        """Return the staleness of gradients that were so many updates behind."""
        most = max((one for one in behind if one is not None), default=0)
        return cls(stage, most, behind, worker, server)

    @property
    def mean_versions_behind(self) -> float:
        """The mean of `versions_behind`, without what was dropped; 0 where all was."""
        applied = [behind for behind in self.versions_behind if behind is not None]
        return sum(applied) / len(applied) if applied else 0.0

    @property
    def histogram(self) -> list[int]:
        """The number of gradients that were 0, 1, 2, … updates behind; dropped ones do not count.

        It ends with the largest that occurs.
        """
        counts = Counter(self.versions_behind)
        return [counts[behind] for behind in range(self.max_versions_behind + 1)]

    def to_json(self) -> dict[str, Any]:
        """Return the fields under their names; of a worker also the mean and the histogram."""
        plain = dict(vars(self))
        if self.worker is None:
            del plain["worker"], plain["server"]
            return plain
        return plain | {name: getattr(self, name) for name in DERIVED}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> StageStaleness:
        """Read what `to_json` wrote.

        Raises:
            TypeError: a field is missing or unknown.
        """
        if not isinstance(data, dict):
            raise TypeError(f"{data!r} is no staleness")
        return cls(**{name: value for name, value in data.items() if name not in DERIVED})


class Staleness:
    """Collects, per stage, the versions that forward passes used and updates superseded.

    Attributes:
        behind: per stage and microbatch of a step, how many updates its gradient is behind.
    """

    def __init__(self) -> None:
        self._used: dict[tuple[int, Batch], int] = {}
        self._pending: dict[int, set[Batch]] = {}
        self.behind: dict[int, dict[Batch, int]] = {}

    def use(self, stage: int, batch: Batch, version: int) -> None:
        """Record that a forward pass of `stage` used the weights of `version`."""
        self._used[stage, batch] = version

    def contribute(self, stage: int, batch: Batch) -> None:
        """Record that a backward pass of `stage` has added the gradient of a microbatch."""
        self._pending.setdefault(stage, set()).add(batch)

    def update(self, stage: int, version: int) -> None:
        """Record an update of `stage`: it took `version` and the gradients since the one before."""
        for batch in self._pending.pop(stage, ()):
            behind = version - self._used[stage, batch]
            self.behind.setdefault(stage, {})[batch] = behind

    def stages(self) -> list[StageStaleness]:
        """Return what was collected, stage by stage."""
        return [
            StageStaleness(stage, max(behind.values()), [behind[batch] for batch in sorted(behind)])
            for stage, behind in sorted(self.behind.items())
        ]


def staleness_of(program: Program, ranks: list[int]) -> list[StageStaleness]:
    """Return the staleness of every stage on `ranks` (one replica of the pipeline)."""
    result: list[StageStaleness] = []
    lists = dict(zip(program.members, program.columns, strict=True))
    buckets = dict(zip(program.members, program.buckets, strict=True))
    for rank in ranks:
        weights = frozenset(bucket.weights for bucket in buckets[rank])
        found = _at_once(lists[rank])
        result += _in_turn(lists[rank], weights) if found is None else found
    return sorted(result, key=lambda row: row.stage)


def updates_of(columns: Columns) -> set[Task]:
    """Return the tasks of a list that count as updates of a stage.

    They are the steps of the rank itself, or what servers send of stages of which it updates
    nothing. Trainers that serve each other update parts of a stage, all of the same version.
    """
    own = {task.stage for task in columns.tasks if task.op is Op.OPTIMIZER_STEP}
    return {
        task
        for task in columns.tasks
        if task.op in UPDATES and (task.op is Op.OPTIMIZER_STEP or task.stage not in own)
    }


def _at_once(columns: Columns) -> list[StageStaleness] | None:
    """Return the staleness of stages that are updated once, at the end; None: they are not."""
    tasks, replacing = columns.tasks, updates_of(columns)
    updates, forwards, last = (
        np.flatnonzero(np.array(which, bool)[columns.task])
        for which in (
            [task in replacing for task in tasks],
            [task.op is Op.FORWARD for task in tasks],
            [task.op in LAST_BACKWARDS for task in tasks],
        )
    )
    stage = np.array([task.stage for task in tasks], dtype=np.int64)[columns.task]
    updated = stage[updates]
    begun = max(forwards.max(initial=-1), last.max(initial=-1))
    if np.unique(updated).size < updated.size or begun > updates.min(initial=len(columns)):
        return None
    if any(task.op is Op.FORWARD and task.version >= 0 for task in tasks) or columns.step.any():
        return None
    found = []
    for number in updated.tolist():
        microbatches = np.unique(columns.microbatch[last[stage[last] == number]])
        if microbatches.size:
            found.append(StageStaleness(number, 0, [0] * microbatches.size))
    return found


def _in_turn(columns: Columns, weights: Set[TensorName]) -> list[StageStaleness]:
    """Return the staleness of the stages of one list, instruction by instruction.

    Args:
        columns: of the list.
        weights: names of its parameters.
    """
    replacing = updates_of(columns)
    staleness = Staleness()
    newest: Counter[TensorName | int | None] = Counter()  # by stage, or bucket
    counts = np.array([task.op in COUNTS for task in columns.tasks], bool)[columns.task]
    of_counted = (columns.task, columns.step, columns.microbatch)
    for number, *batch in zip(*(column[counts].tolist() for column in of_counted), strict=True):
        task = columns.tasks[number]
        stage = task.stage
        if task.op is Op.FORWARD:
            version = task.version if task.version >= 0 else newest[stage]
            staleness.use(stage, (batch[0], batch[1]), version)
        elif task.op in LAST_BACKWARDS:
            staleness.contribute(stage, (batch[0], batch[1]))
        elif task in replacing and (not task.tensor or task.tensor in weights):
            what = task.tensor or stage
            staleness.update(stage, newest[what])
            newest[what] += 1
            newest[stage] = max(newest[stage], newest[what])
    return staleness.stages()
