"""Runs: instructions of one rank that follow each other and meet nobody.

If nothing else is under way on the rank, all their times follow from the one at which the first of
them can start, and are the same, from then on, in every call of the template. So a walk needs one
step for all of them (see `simulator.program.leaping_walk`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from simulator.program.program import Program
from simulator.program.stream import COMPUTE_STREAM, Stream
from simulator.program.task import Task
from simulator.program.template import Template

Times = tuple[Sequence[float], Sequence[float], Sequence[float]]
"""Seconds, by position in a run, at which instructions are posted, start and end."""


class Run(NamedTuple):
    """Instructions of one rank that meet nobody.

    First come those that are left of calls before, then those of one call from some compute
    instruction on.

    Attributes:
        length: how many are of the call.
        outside: the positions, among those of the call, that wait for something before the run.
        times: when all of them happen, the first of the call being able to start at 0.
        counts: how many of them are on each stream.
        free: seconds at which each stream is free again.
    """

    length: int
    outside: tuple[int, ...]
    times: Times
    counts: dict[Stream, int]
    free: dict[Stream, float]


class Conditions(Protocol):
    """The questions about instructions that runs depend on, which a walk answers."""

    def is_alone(self, uid: int) -> bool:
        """Tell whether an instruction meets nobody and is slowed by its own rank at most."""

    def timed(self, uids: Sequence[int]) -> Times:
        """Return the times of instructions of one rank with nothing beside them."""

    def waits(self, uid: int) -> list[int]:
        """Return the uids of what an instruction names that must have ended before it."""


class Runs:
    """Finds the run that begins at an instruction, and makes it once for all calls alike.

    Args:
        program: the program whose lists are looked at; it must have calls.
        conditions: tells what can be part of a run, and how long it takes.
    """

    def __init__(self, program: Program, conditions: Conditions) -> None:
        self._conditions = conditions
        self._template: list[Template] = []  # by uid
        self._begin: list[int] = []  # by uid, that of the first instruction of its call
        self._task: list[Task] = []  # by uid
        for columns in program.columns:
            self._task += [columns.tasks[number] for number in columns.task.tolist()]
        for call in (call for calls in program.calls for call in calls):
            count = len(call.template.order)
            self._begin += [len(self._begin)] * count
            self._template += [call.template] * count
        self._at: dict[tuple[Template, int, tuple[int, ...]], Run | None] = {}
        self._made: dict[tuple[int, ...], Run | None] = {}

    def at(self, first: int, left: Sequence[int]) -> Run | None:
        """Return the run of `left` and of what follows `first`; None: it is not worth it."""
        template = self._template[first]
        position = first - self._begin[first]
        tasks = tuple([id(self._task[other]) for other in left])
        key = template, position, tasks
        if key not in self._at:
            numbers = template.order[position:]
            # Templates that differ only before it share it: they have the same entries.
            content = (*tasks, -1, *(id(template.entries[number]) for number in numbers))
            if content not in self._made:
                self._made[content] = self._make(first, len(numbers), left)
            self._at[key] = self._made[content]
        return self._at[key]

    def _make(self, first: int, most: int, left: Sequence[int]) -> Run | None:
        """Return the run of `left` and of at most so many instructions from `first` on."""
        members = list(left)
        for uid in range(first, first + most):
            if not self._conditions.is_alone(uid):
                break
            members.append(uid)
        if len(members) < len(left) + 2:
            return None
        times = self._conditions.timed(members)
        streams = [self._task[uid].stream for uid in members]
        count = settled(streams, times[2])
        if count < len(left) + 2:
            return None
        counts: dict[Stream, int] = {}
        free: dict[Stream, float] = {}
        for stream, end in zip(streams[:count], times[2], strict=False):
            counts[stream] = counts.get(stream, 0) + 1
            free[stream] = end
        outside = tuple(
            uid - first
            for uid in members[len(left) : count]
            if any(other < first for other in self._conditions.waits(uid))
        )
        posted, start, ends = (column[:count] for column in times)
        return Run(count - len(left), outside, (posted, start, ends), counts, free)


def settled(streams: Sequence[Stream], ends: Sequence[float]) -> int:
    """Return how many instructions, from the first on, have ended when the last compute has.

    What goes on beyond that may be slowed by what comes behind the run.
    """
    count, latest = 0, 0.0
    for number, (stream, end) in enumerate(zip(streams, ends, strict=True), 1):
        latest = max(latest, end)
        if stream == COMPUTE_STREAM and end >= latest:
            count = number
    return count
