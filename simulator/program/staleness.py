"""How many updates behind the weights were that a gradient was computed with."""

from __future__ import annotations

from typing import Any

from simulator.program.operations import LAST_BACKWARDS, Op
from simulator.program.program import Program


class Staleness:
    """Collects, per stage, the versions that forward passes used and updates superseded."""

    def __init__(self) -> None:
        self._used: dict[tuple[int, int], int] = {}
        self._pending: dict[int, set[int]] = {}
        self.behind: dict[int, dict[int, int]] = {}

    def use(self, stage: int, microbatch: int, version: int) -> None:
        """A forward pass of `stage` used the weights of `version`."""
        self._used[stage, microbatch] = version

    def contribute(self, stage: int, microbatch: int) -> None:
        """A backward pass of `stage` has added the gradient of `microbatch`."""
        self._pending.setdefault(stage, set()).add(microbatch)

    def update(self, stage: int, version: int) -> None:
        """An update of `stage` took `version` and the gradients since the one before."""
        for microbatch in self._pending.pop(stage, ()):
            behind = version - self._used[stage, microbatch]
            self.behind.setdefault(stage, {})[microbatch] = behind

    def to_json(self) -> list[dict[str, Any]]:
        """Per stage: versions behind, the maximum and for every microbatch in order."""
        return [
            {
                "stage": stage,
                "max_versions_behind": max(behind.values()),
                "versions_behind": [behind[microbatch] for microbatch in sorted(behind)],
            }
            for stage, behind in sorted(self.behind.items())
        ]


def staleness_of(program: Program, ranks: list[int]) -> list[dict[str, Any]]:
    """Of a program, as its lists say, over `ranks` (one replica of the pipeline)."""
    result: list[dict[str, Any]] = []
    lists = dict(zip(program.members, program.ranks, strict=True))
    for rank in ranks:
        staleness = Staleness()
        newest: dict[int, int] = {}
        for instruction in lists[rank]:
            task, stage = instruction.task, instruction.task.stage
            if task.op is Op.FORWARD:
                version = task.version if task.version >= 0 else newest.get(stage, 0)
                staleness.use(stage, instruction.microbatch, version)
            elif task.op in LAST_BACKWARDS:
                staleness.contribute(stage, instruction.microbatch)
            elif task.op is Op.OPTIMIZER_STEP:
                staleness.update(stage, newest.get(stage, 0))
                newest[stage] = newest.get(stage, 0) + 1
        result += staleness.to_json()
    return sorted(result, key=lambda row: int(row["stage"]))
