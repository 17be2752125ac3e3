"""Staleness where the order of arrival decides: a function of a program and of decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simulator.program.accept_queue import Decision
from simulator.program.arrivals import acceptance_of
from simulator.program.program import Program


@dataclass(frozen=True)
class WorkerStaleness:
    """The staleness of the gradients of one worker.

    Attributes:
        queue: the queue in which the server accepts them.
        rank: the worker.
        versions_behind: per push, in order, the updates between the parameters that the worker
            had pulled last and the update its gradient went into; None: it came too late and
            was dropped.
    """

    queue: str
    rank: int
    versions_behind: list[int | None]

    @property
    def applied(self) -> list[int]:
        """The staleness of the pushes that went into an update."""
        return [behind for behind in self.versions_behind if behind is not None]

    @property
    def max_versions_behind(self) -> int:
        """The largest staleness."""
        return max(self.applied, default=0)

    @property
    def mean_versions_behind(self) -> float:
        """The mean staleness; 0 if no push went into an update."""
        return sum(self.applied) / len(self.applied) if self.applied else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the fields under their names, and what is derived from them."""
        return dict(vars(self)) | {
            "max_versions_behind": self.max_versions_behind,
            "mean_versions_behind": self.mean_versions_behind,
        }


def arrival_staleness(program: Program, decisions: Sequence[Decision]) -> list[WorkerStaleness]:
    """Return the staleness of every worker in every queue, by queue and rank.

    Args:
        program: what was simulated or executed.
        decisions: who met whom, in order.
    """
    rows: list[WorkerStaleness] = []
    for queue in program.queues:
        acceptance = acceptance_of(queue, decisions)
        behind: dict[int, list[int | None]] = {rank: [] for rank in sorted(queue.requests)}
        for decision in decisions:
            request = queue.by_uid.get(decision.request)
            if request is None:
                continue
            outcome = acceptance.accept(request)
            if request.is_push:
                behind[request.rank].append(outcome.staleness if outcome.counts else None)
        rows += [WorkerStaleness(queue.name, rank, found) for rank, found in behind.items()]
    return rows
