"""Pushes of workers in a timeline: which version each read, and which update came of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simulator.program.operations import Op
from simulator.timeline.timeline import Timeline


class Push(NamedTuple):
    """A gradient on its way from the parameters that it is of to the server.

    Attributes:
        worker, server: the rows of the timeline.
        pull: the span of the worker that read the parameters.
        push: the span of the worker that sent the gradient.
        write: the span of the server: the update that the push made due, else its acceptance.
        updates: the updates between the pull and this push.
    """

    worker: int
    server: int
    pull: int
    push: int
    write: int
    updates: int


def steps_of_accepts(timeline: Timeline) -> dict[int, int]:
    """Return, by the span of an ACCEPT, that of the optimizer step with the same number."""
    if not timeline.decisions:
        return {}
    numbers = [timeline.rank, timeline.step, timeline.microbatch]
    found: dict[tuple[int, ...], int] = {}
    for span in np.flatnonzero(timeline.of_kind(lambda kind: kind.op is Op.OPTIMIZER_STEP)):
        found[tuple(int(column[span]) for column in numbers)] = int(span)
    return {
        accept: found[key]
        for accept, _ in timeline.decisions
        if (key := tuple(int(column[accept]) for column in numbers)) in found
    }


def updates_of(timeline: Timeline) -> dict[int, list[int]]:
    """Return the spans of the updates of each server that serves by arrival, in order of time."""
    steps, idle = steps_of_accepts(timeline), set(timeline.idle)
    found: dict[int, list[int]] = {}
    for accept, _ in timeline.decisions:
        mine = found.setdefault(int(timeline.rank[accept]), [])
        if accept in steps and steps[accept] not in idle:
            mine.append(steps[accept])
    return found


def pushes_of(timeline: Timeline) -> list[Push]:
    """Return the pushes of workers that had pulled before, in order of time."""
    steps, idle = steps_of_accepts(timeline), set(timeline.idle)
    updates: dict[int, int] = {}
    pulls: dict[tuple[int, int], tuple[int, int]] = {}  # the span, and the updates before it
    found: list[Push] = []
    for accept, request in timeline.decisions:
        server, worker = int(timeline.rank[accept]), int(timeline.rank[request])
        now = updates.setdefault(server, 0)
        if timeline.kinds[timeline.kind[request]].op is not Op.SEND:
            pulls[worker, server] = request, now
            continue
        is_due = accept in steps and steps[accept] not in idle
        write = steps[accept] if is_due else accept
        if (worker, server) in pulls:
            pull, then = pulls[worker, server]
            found.append(Push(worker, server, pull, request, write, now - then))
        updates[server] += is_due
    return found
