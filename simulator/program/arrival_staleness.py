"""Staleness where the order of arrival decides: a function of a program and of decisions."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.program.accept_queue import Decision
from simulator.program.arrivals import replayed
from simulator.program.program import Program
from simulator.program.staleness import StageStaleness


def arrival_staleness(program: Program, decisions: Sequence[Decision]) -> list[StageStaleness]:
    """Return the staleness of every worker in every queue, by queue and rank.

    Args:
        program: what was simulated or executed.
        decisions: who met whom, in order.
    """
    rows: list[StageStaleness] = []
    for queue in (queue for queue in program.queues if queue.steps):
        acceptance = replayed(queue, decisions)
        behind: dict[int, list[int | None]] = {rank: [] for rank in sorted(queue.requests)}
        for decision, outcome in zip(acceptance.decisions, acceptance.outcomes, strict=True):
            request = queue.by_uid[decision.request]
            if request.is_push:
                behind[request.rank].append(outcome.staleness if outcome.counts else None)
        stage = program.instruction(queue.accepts[0]).task.stage
        rows += [
            StageStaleness.of(stage, found, rank, queue.server) for rank, found in behind.items()
        ]
    return rows


def dropped_pushes(program: Program, rows: Sequence[StageStaleness]) -> set[int]:
    """Return the uids of the pushes that came too late and went into no update.

    Args:
        program: what was simulated or executed.
        rows: the staleness of its workers.
    """
    dropped: set[int] = set()
    for queue in program.queues:
        for row in rows:
            if row.server == queue.server and row.worker in queue.requests:
                pushes = [uid for uid in queue.requests[row.worker] if uid in queue.pushes]
                behind = zip(pushes, row.versions_behind, strict=True)
                dropped.update(uid for uid, one in behind if one is None)
    return dropped
