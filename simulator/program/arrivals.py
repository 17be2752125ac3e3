"""Arrivals in virtual time: which requests have come, and who is served when."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from simulator.program.accept_queue import Acceptance, AcceptQueue, Decision
from simulator.program.arrival import Recorded, Request

NEVER = float("inf")

LAST = sys.maxsize
"""Stands for a rank behind all others."""


class Meeting(NamedTuple):
    """A request that can be served.

    Attributes:
        time: seconds, from when on.
        request: whose turn it is.
    """

    time: float
    request: Request


class Line:
    """The requests of one queue that have come and the server that may be ready for them.

    Args:
        acceptance: decides.
    """

    def __init__(self, acceptance: Acceptance) -> None:
        self.acceptance = acceptance
        self._requests: list[Request] = []  # that wait, by arrival, at equal times by rank
        self._came: list[tuple[float, int]] = []  # their times and ranks
        self._ready: float | None = None  # since when the server has waited
        self._next: Meeting | None = None

    def ask(self, request: Request, time: float) -> None:
        """Let a request wait from `time` on."""
        place = bisect_right(self._came, (time, request.rank))
        self._came.insert(place, (time, request.rank))
        self._requests.insert(place, request)
        self._next = None

    def open(self, time: float) -> None:
        """Let the server be ready for the next request from `time` on."""
        self._ready = time
        self._next = None

    def next(self) -> Meeting | None:
        """Return who can be served first, if nobody comes before that; None: nobody."""
        if self._next is None and self._ready is not None and self._requests:
            self._next = self._first(self._ready)
        return self._next

    def _first(self, ready: float) -> Meeting | None:
        """Ask the policy when the server is ready, and whenever somebody has come since."""
        there, time = 0, ready
        while there < len(self._came):
            time = max(time, self._came[there][0])
            there = bisect_right(self._came, (time, LAST))
            chosen = self.acceptance.choose(self._requests[:there])
            if chosen is not None:
                return Meeting(time, chosen)
        return None

    def serve(self, request: Request) -> Decision:
        """Serve a request; the server is not ready for another one until it says so."""
        place = self._requests.index(request)
        del self._requests[place], self._came[place]
        self._ready = self._next = None
        self.acceptance.accept(request)
        return self.acceptance.decisions[-1]


class Arrivals:
    """All queues of a program, in virtual time.

    Args:
        queues: those of the program.
        record: decisions to repeat; None: policies decide.

    Attributes:
        lines: by the name of their queue.
        decisions: what was decided, in order of time.
    """

    def __init__(
        self, queues: Sequence[AcceptQueue], record: Sequence[Decision] | None = None
    ) -> None:
        self.lines = {queue.name: Line(acceptance_of(queue, record)) for queue in queues}
        self.decisions: list[Decision] = []
        self._meetings: dict[int, tuple[Line, Request | None]] = {}  # None: the server's side
        self._steps: dict[int, tuple[Acceptance, int]] = {}
        self._passes: dict[int, Acceptance] = {}
        for queue in queues:
            line = self.lines[queue.name]
            self._meetings |= dict.fromkeys(queue.accepts, (line, None))
            self._meetings |= {uid: (line, request) for uid, request in queue.by_uid.items()}
            self._passes |= dict.fromkeys(queue.passes, line.acceptance)
            for number, uid in enumerate(queue.steps):
                self._steps[uid] = line.acceptance, number

    @property
    def concerned(self) -> Iterable[int]:
        """The uids of all instructions that meet by arrival, or depend on who did."""
        return [*self._meetings, *self._steps, *self._passes]

    @property
    def idle(self) -> list[int]:
        """The uids of what had nothing to do: see `idle_instructions`."""
        return [uid for line in self.lines.values() for uid in _idle_of(line.acceptance)]

    def arrive(self, uid: int, time: float) -> bool:
        """Record that an instruction is posted; tell whether it does nothing and ends at once."""
        if uid in self._steps:
            return not self.is_due(uid)
        if uid in self._passes:
            return self._passes[uid].microbatch_of(uid) < 0
        line, request = self._meetings[uid]
        if request is None:
            line.open(time)
        elif line.acceptance.is_skipped(uid):
            return True
        else:
            line.ask(request, time)
        return False

    def is_due(self, step: int) -> bool:
        """Tell whether an optimizer step has something to do, its request being served."""
        acceptance, number = self._steps[step]
        return acceptance.outcomes[number].pushes > 0

    def waits(self, uid: int) -> bool:
        """Tell whether an instruction has to be chosen before it begins."""
        return uid not in self._steps and uid not in self._passes

    def soonest(self) -> float:
        """Return when the next request can be served, if nobody comes before that."""
        found = self._first()
        return NEVER if found is None else found[0].time

    def serve(self) -> tuple[float, Decision] | None:
        """Serve the next request; return when, and what met. None: nobody can be served."""
        found = self._first()
        if found is None:
            return None
        meeting, line = found
        decision = line.serve(meeting.request)
        self.decisions.append(decision)
        return meeting.time, decision

    def _first(self) -> tuple[Meeting, Line] | None:
        """Return who can be served first, in any queue; at equal times the name decides."""
        first: tuple[Meeting, Line] | None = None
        for line in self.lines.values():
            meeting = line.next()
            if meeting is not None and (first is None or meeting.time < first[0].time):
                first = meeting, line
        return first


def idle_instructions(queues: Sequence[AcceptQueue], record: Sequence[Decision]) -> list[int]:
    """Return the uids of what had nothing to do, given all decisions.

    These are optimizer steps where no update was due, passes whose worker got no microbatch for
    them, and requests for work by those who had heard that there was none.
    """
    return [uid for queue in queues for uid in _idle_of(replayed(queue, record))]


def _idle_of(acceptance: Acceptance) -> list[int]:
    queue = acceptance.queue
    steps = zip(queue.steps, acceptance.outcomes, strict=False)
    idle = [step for step, outcome in steps if not outcome.pushes]
    idle += [uid for uid in queue.passes if acceptance.microbatch_of(uid) < 0]
    return idle + [uid for uid in queue.earlier if acceptance.is_skipped(uid)]


def replayed(queue: AcceptQueue, record: Sequence[Decision]) -> Acceptance:
    """Return the decisions of a queue after all that a record has of it."""
    acceptance = acceptance_of(queue, record)
    for decision in record:
        if decision.request in queue.by_uid:
            acceptance.accept(queue.by_uid[decision.request])
    return acceptance


def acceptance_of(queue: AcceptQueue, record: Sequence[Decision] | None) -> Acceptance:
    """Return the decisions to come of a queue: its policy's, or those of a record."""
    if record is None:
        return Acceptance(queue)
    order = tuple(decision.request for decision in record if decision.request in queue.by_uid)
    return Acceptance(queue, Recorded(queue.policy, order))
