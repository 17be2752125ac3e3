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
        is_due: it makes an update due.
    """

    worker: int
    server: int
    pull: int
    push: int
    write: int
    updates: int
    is_due: bool


def steps_of_accepts(timeline: Timeline) -> dict[int, int]:
    """Return, by the span of an ACCEPT, that of the optimizer step with the same number."""

    def numbers(spans: list[int]) -> list[tuple[int, ...]]:
        columns = timeline.rank, timeline.step, timeline.microbatch
        return list(zip(*(column[spans].tolist() for column in columns), strict=True))

    accepts = [accept for accept, _ in timeline.decisions]
    if not accepts:
        return {}
    steps = np.flatnonzero(timeline.of_kind(lambda kind: kind.op is Op.OPTIMIZER_STEP)).tolist()
    found = dict(zip(numbers(steps), steps, strict=True))
    pairs = zip(accepts, numbers(accepts), strict=True)
    return {accept: found[number] for accept, number in pairs if number in found}


def pushes_of(timeline: Timeline) -> list[Push]:
    """Return the pushes of workers that had pulled before, in order of time."""
    if not timeline.decisions:
        return []
    steps, idle = steps_of_accepts(timeline), set(timeline.idle)
    updates: dict[int, int] = {}
    pulls: dict[tuple[int, int], tuple[int, int]] = {}  # the span, and the updates before it
    found: list[Push] = []
    ranks = timeline.rank.tolist()
    sends = timeline.of_kind(lambda kind: kind.op is Op.SEND).tolist()
    for accept, request in timeline.decisions:
        server, worker = ranks[accept], ranks[request]
        now = updates.setdefault(server, 0)
        if not sends[request]:
            pulls[worker, server] = request, now
            continue
        is_due = accept in steps and steps[accept] not in idle
        write = steps[accept] if is_due else accept
        if (worker, server) in pulls:
            pull, then = pulls[worker, server]
            found.append(Push(worker, server, pull, request, write, now - then, is_due))
        updates[server] += is_due
    return found
