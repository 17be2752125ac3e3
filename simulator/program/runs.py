"""Runs: instructions of one rank that follow each other and meet nobody.

If nothing else is under way on the rank, all their times follow from the one at which the first of
them can start, and are the same, from then on, in every call of the template. So a walk needs one
step for all of them (see `simulator.program.leaping_walk`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from simulator.program.instruction import Instruction
from simulator.program.operations import COMPUTE_STREAM
from simulator.program.program import Program
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
        counts: how many of them are on each stream, by its name.
        free: seconds at which each stream is free again, by its name.
    """

    length: int
    outside: tuple[int, ...]
    times: Times
    counts: dict[str, int]
    free: dict[str, float]


class Runs:
    """Finds the run that begins at an instruction, and makes it once for all calls alike.

    Args:
        program: the program whose lists are looked at; it must have calls.
        is_alone: tells whether an instruction can be part of a run.
        timed: returns the times of instructions of one rank that run with nothing beside them.
    """

    def __init__(
        self,
        program: Program,
        is_alone: Callable[[Instruction], bool],
        timed: Callable[[Sequence[Instruction]], Times],
    ) -> None:
        self._is_alone, self._timed = is_alone, timed
        self._lists = dict(zip(program.members, program.ranks, strict=True))
        self._template: list[Template] = []  # by uid
        self._begin: list[int] = []  # by uid, the index of the first instruction of its call
        for calls in program.calls:
            index = 0
            for call in calls:
                count = len(call.template.order)
                self._template += [call.template] * count
                self._begin += [index] * count
                index += count
        self._at: dict[tuple[Template, int, tuple[int, ...]], Run | None] = {}
        self._made: dict[tuple[int, ...], Run | None] = {}

    def at(self, first: Instruction, left: Sequence[Instruction]) -> Run | None:
        """Return the run of `left` and of what follows `first`; None: it is not worth it."""
        template = self._template[first.uid]
        position = first.index - self._begin[first.uid]
        tasks = tuple([id(other.task) for other in left])
        key = template, position, tasks
        if key not in self._at:
            numbers = template.order[position:]
            # Templates that differ only in what is behind the run, or before it, share it.
            content = (*tasks, -1, *(id(template.entries[number].task) for number in numbers))
            if content not in self._made:
                self._made[content] = self._make(first, len(numbers), left)
            self._at[key] = self._made[content]
        return self._at[key]

    def _make(self, first: Instruction, most: int, left: Sequence[Instruction]) -> Run | None:
        """Return the run of `left` and of at most so many instructions from `first` on."""
        members = list(left)
        for instruction in self._lists[first.rank][first.index : first.index + most]:
            if not self._is_alone(instruction):
                break
            members.append(instruction)
        if len(members) < len(left) + 2:
            return None
        times = self._timed(members)
        count = settled(members, times[2])
        if count < len(left) + 2:
            return None
        counts: dict[str, int] = {}
        free: dict[str, float] = {}
        for instruction, end in zip(members[:count], times[2], strict=False):
            stream = instruction.task.stream
            counts[stream] = counts.get(stream, 0) + 1
            free[stream] = end
        outside = tuple(
            place
            for place, instruction in enumerate(members[len(left) : count])
            if any(other.index < first.index for other in instruction.after)
        )
        posted, start, ends = (column[:count] for column in times)
        return Run(count - len(left), outside, (posted, start, ends), counts, free)


def settled(members: Sequence[Instruction], ends: Sequence[float]) -> int:
    """Return how many instructions, from the first on, have ended when the last compute has.

    What goes on beyond that may be slowed by what comes behind the run.
    """
    count, latest = 0, 0.0
    for number, (instruction, end) in enumerate(zip(members, ends, strict=True), 1):
        latest = max(latest, end)
        if instruction.task.stream == COMPUTE_STREAM and end >= latest:
            count = number
    return count
