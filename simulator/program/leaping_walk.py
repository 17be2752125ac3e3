"""A walk that takes whole runs of instructions in one step."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from simulator.program.accept_queue import Decision
from simulator.program.arrivals import NEVER
from simulator.program.program import Program
from simulator.program.runs import Run, Runs, Times
from simulator.program.stream import COMPUTE_STREAM
from simulator.program.walk import Floats, StreamQueue, Walk


class LeapingWalk(Walk):
    """A walk in which instructions that meet nobody are one step, where calls are alike.

    Its results are those of `Walk`. A run begins at a compute instruction when nothing goes on
    beside it on its rank but messages, and is broken off before one of them, or anything else,
    could slow it; a transfer that starts at the same moment, left of the call before, is part of
    it. Where the order of arrival decides who meets,
    every instruction is a step of its own.
    """

    def __init__(self, program: Program, record: Sequence[Decision] | None = None) -> None:
        super().__init__(program, record)
        leaps = program.calls and self.arrivals is None and self.leaps()
        self._runs = Runs(program, self) if leaps else None
        self._taken: dict[int, tuple[Run, list[int], list[float]]] = {}  # uids and moments

    def leaps(self) -> bool:
        """Tell whether instructions of one task on one rank always take the same time."""
        return True

    def is_alone(self, uid: int) -> bool:
        """Tell whether an instruction meets nobody."""
        number = self.meeting[uid]
        return number < 0 or len(self.program.participants[number]) == 1

    def timed(self, uids: Sequence[int]) -> Times:
        """Return the times of instructions of one rank with nothing beside them."""
        none = [0.0] * len(uids)
        return none, none, none

    def uses(self, uid: int) -> Iterable[Hashable]:
        """Return what an instruction uses that not only its rank uses."""
        return ()

    def undisturbed_until(self, run: Run, stream: StreamQueue) -> float:
        """Return until when nothing else can use what a run of the rank of a stream uses."""
        return NEVER

    def leap(self, stream: StreamQueue, uid: int, ready: float) -> bool:
        """Take the run that begins at an instruction, if there is one and nothing disturbs it."""
        if self._runs is None or stream.name != COMPUTE_STREAM:
            return False
        left = self._left(stream, uid, ready)
        if left is None:
            return False
        run = self._runs.at(uid, left)
        if run is None:
            return False
        if run.uses:
            run = self._runs.until(run, uid, left, self.undisturbed_until(run, stream) - ready)
        if run is None or self._is_disturbed(run, uid, left, ready):
            return False
        self._take(run, stream, uid, left, ready)
        return True

    def _left(self, stream: StreamQueue, first: int, ready: float) -> list[int] | None:
        """Return the transfers before `first` that start with it; None: others are under way."""
        left: list[int] = []
        for other in stream.beside.values():
            if other is stream or other.meets:
                continue
            if other.busy or other.free > ready:
                return None
            queue, head = other.queue, other.head
            if head < len(queue) and queue[head] < first:
                if head + 1 < len(queue) and queue[head + 1] < first:
                    return None
                if not self._starts_at(queue[head], other.free, ready):
                    return None
                left.append(queue[head])
        return left

    def _starts_at(self, transfer: int, free: float, ready: float) -> bool:
        """Tell whether a transfer that meets nobody starts exactly at `ready`."""
        ends = [self.end[other] for other in self.waits(transfer)]
        starts = min(ends, default=0.0) >= 0 and max([free, *ends]) == ready
        return starts and self.is_alone(transfer)

    def _is_disturbed(self, run: Run, first: int, left: Sequence[int], ready: float) -> bool:
        """Tell whether something that a run waits for ends later than it could start."""
        return any(
            before < first and before not in left and not 0 <= self.end[before] <= ready
            for place in run.outside
            for before in self.waits(first + place)
        )

    def _take(
        self, run: Run, stream: StreamQueue, uid: int, left: Sequence[int], ready: float
    ) -> None:
        """Take a run, the first of whose instructions can start at `ready`.

        Only times that others ask for are written down here, all others at the end (`times`).
        """
        posted, start, end = run.times
        for place, transfer in enumerate(left):
            self.posted[transfer] = ready + posted[place]
            self.start[transfer] = ready + start[place]
            self.end[transfer] = ready + end[place]
        taken = self._taken.get(id(run))
        if taken is None:
            taken = self._taken[id(run)] = run, [], []
        taken[1].append(uid)
        taken[2].append(ready)
        for name, number in run.counts.items():
            other = stream.beside[name]
            other.head += number
            other.free = ready + run.free[name]
            self.note(other)
        ended, count = self.end, len(left)
        for place in run.awaited:
            ended[uid + place] = ready + end[count + place]
        if self._waiting:
            for other_uid in (*left, *(uid + place for place in run.awaited)):
                for waiting in self._waiting.pop(other_uid, ()):
                    self.note(waiting)

    def times(self) -> Floats:
        """Return rows of when every instruction is posted, starts and ends; -1: it has not."""
        columns = super().times()
        for run, uids, ready in self._taken.values():
            of_run = np.array(run.times)[:, -run.length :]
            block = np.array(uids)[:, None] + np.arange(run.length)
            columns[:, block] = np.array(ready)[None, :, None] + of_run[:, None, :]
        return columns
