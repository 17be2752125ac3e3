"""A walk that takes whole runs of instructions in one step."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.program.instruction import Instruction
from simulator.program.operations import COMPUTE_STREAM, MESSAGES
from simulator.program.program import Program
from simulator.program.runs import Run, Runs, Times
from simulator.program.walk import Stream, Walk


class LeapingWalk(Walk):
    """A walk in which instructions that meet nobody are one step, where calls are alike.

    Its results are those of `Walk`. A run begins at a compute instruction when nothing goes on
    beside it on its rank but messages, which slow no run; a transfer that starts at the same
    moment, left of the call before, is part of it.
    """

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        leaps = program.calls and self.leaps()
        self._runs = Runs(program, self.is_alone, self.timed) if leaps else None
        self._lists = dict(zip(program.members, program.ranks, strict=True))

    def leaps(self) -> bool:
        """Tell whether instructions of one task on one rank always take the same time."""
        return True

    def is_alone(self, instruction: Instruction) -> bool:
        """Tell whether an instruction meets nobody and is slowed by its own rank at most."""
        number = self._meeting[instruction.uid]
        return number < 0 or len(self.program.meetings[number]) == 1

    def timed(self, instructions: Sequence[Instruction]) -> Times:
        """Return the times of instructions of one rank with nothing beside them."""
        none = [0.0] * len(instructions)
        return none, none, none

    def leap(self, stream: Stream, instruction: Instruction, ready: float) -> bool:
        """Take the run that begins at an instruction, if there is one and nothing disturbs it."""
        if self._runs is None or instruction.task.stream != COMPUTE_STREAM:
            return False
        left = self._left(stream, instruction, ready)
        if left is None:
            return False
        run = self._runs.at(instruction, left)
        if run is None or self._is_disturbed(run, instruction, left, ready):
            return False
        self._take(run, stream, instruction.uid, left, ready)
        return True

    def _left(self, stream: Stream, first: Instruction, ready: float) -> list[Instruction] | None:
        """Return the transfers before `first` that start with it; None: others are under way."""
        left: list[Instruction] = []
        for other in stream.beside.values():
            if other is stream or other.queue[0].task.op in MESSAGES:
                continue
            if other.busy or other.free > ready:
                return None
            queue, head = other.queue, other.head
            if head < len(queue) and queue[head].uid < first.uid:
                if head + 1 < len(queue) and queue[head + 1].uid < first.uid:
                    return None
                if not self._starts_at(queue[head], other.free, ready):
                    return None
                left.append(queue[head])
        return left

    def _starts_at(self, transfer: Instruction, free: float, ready: float) -> bool:
        """Tell whether a transfer that meets nobody starts exactly at `ready`."""
        ends = [self.end[other.uid] for other in transfer.after]
        return (
            min(ends, default=0.0) >= 0 and max([free, *ends]) == ready and self.is_alone(transfer)
        )

    def _is_disturbed(
        self, run: Run, first: Instruction, left: Sequence[Instruction], ready: float
    ) -> bool:
        """Tell whether something that a run waits for ends later than it could start."""
        listed, uid = self._lists[first.rank], first.uid
        return any(
            before.uid < uid and before not in left and not 0 <= self.end[before.uid] <= ready
            for place in run.outside
            for before in listed[first.index + place].after
        )

    def _take(
        self, run: Run, stream: Stream, uid: int, left: Sequence[Instruction], ready: float
    ) -> None:
        """Give all instructions of a run their times, the first being able to start at `ready`."""
        uids = [other.uid for other in left]
        until, count = uid + run.length, len(left)
        for column, times in zip((self.posted, self.start, self.end), run.times, strict=True):
            for position, transfer in enumerate(uids):
                column[transfer] = ready + times[position]
            column[uid:until] = [ready + time for time in times[count:]]
        for name, number in run.counts.items():
            other = stream.beside[name]
            other.head += number
            other.free = ready + run.free[name]
            self.note(other)
        if self._waiting:
            for ended in (*uids, *range(uid, until)):
                for waiting in self._waiting.pop(ended, ()):
                    self.note(waiting)
