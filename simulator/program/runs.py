"""Runs: instructions of one rank that follow each other and meet nobody.

If nothing else is under way on the rank, all their times follow from the one at which the first of
them can start, and are the same, from then on, in every call of the template. So a walk needs one
step for all of them (see `simulator.program.leaping_walk`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from simulator.program.columns import Integers
from simulator.program.program import Program
from simulator.program.stream import COMPUTE_STREAM, Stream
from simulator.program.task import Task

Times = tuple[Sequence[float], Sequence[float], Sequence[float]]
"""Seconds, by position in a run, at which instructions are posted, start and end."""


class Run(NamedTuple):
    """Instructions of one rank that meet nobody.

    First come those that are left of calls before, then those of one call from some compute
    instruction on.

    Attributes:
        length: how many are of the call.
        outside: the positions, among those of the call behind the first, that wait for something
            before the run.
        awaited: the positions, among those of the call, that something behind the run waits for.
        times: when all of them happen, the first of the call being able to start at 0.
        counts: how many of them are on each stream.
        free: seconds at which each stream is free again.
        uses: what they use that others may use, too.
        breaks: the seconds at which it may be broken off, ascending, and how many of them have
            ended then.
    """

    length: int
    outside: tuple[int, ...]
    awaited: tuple[int, ...]
    times: Times
    counts: dict[Stream, int]
    free: dict[Stream, float]
    uses: frozenset[Hashable]
    breaks: tuple[tuple[float, int], ...]


class Conditions(Protocol):
    """The questions about instructions that runs depend on, which a walk answers."""

    def is_alone(self, uid: int) -> bool:
        """Tell whether an instruction meets nobody."""

    def timed(self, uids: Sequence[int]) -> Times:
        """Return the times of instructions of one rank with nothing beside them."""

    def uses(self, uid: int) -> Iterable[Hashable]:
        """Return what an instruction uses that not only its rank uses."""

    def waits(self, uid: int) -> list[int]:
        """Return the uids of what an instruction names that must have ended before it."""


class Runs:
    """Finds the run that begins at an instruction, and makes it once for all calls alike.

    Args:
        program: the program whose lists are looked at; it must have calls.
        conditions: tells what can be part of a run, and how long it takes.
    """

    def __init__(self, program: Program, conditions: Conditions) -> None:
        self._program, self._conditions = program, conditions
        self._entry: list[int] = []  # by uid, its number among all entries of all templates
        self._task: list[Task] = []  # by uid
        self._place: list[tuple[int, int, int]] = []  # by entry: the list, template and position
        for row, (columns, calls) in enumerate(
            zip(program.columns, program.call_columns, strict=True)
        ):
            self._task += [columns.tasks[number] for number in columns.task.tolist()]
            begins = []
            for number, template in enumerate(calls.templates):
                begins.append(len(self._place))
                self._place += [(row, number, place) for place in range(len(template.order))]
            if begins:
                starts = np.array(begins)[calls.template] - calls.begin[:-1]
                lengths = np.diff(calls.begin)
                self._entry += (np.repeat(starts, lengths) + np.arange(len(calls))).tolist()
        self._at: dict[tuple[int, ...], Run | None] = {}
        self._made: dict[tuple[int, ...], Run | None] = {}
        self._broken: dict[tuple[tuple[int, ...], int], Run] = {}
        self._last_owner: dict[int, Integers] = {}  # by list

    def at(self, first: int, left: Sequence[int]) -> Run | None:
        """Return the run of `left` and of what follows `first`; None: it is not worth it."""
        key = self._key(first, left)
        if key not in self._at:
            row, number, position = self._place[key[0]]
            template = self._program.call_columns[row].templates[number]
            numbers = template.order[position:]
            # Templates that differ only before it share it: they have the same entries.
            content = (*key[1:], -1, *(id(template.entries[number]) for number in numbers))
            if content not in self._made:
                self._made[content] = self._make(first, len(numbers), left)
            run = self._made[content]
            if run is not None:
                run = run._replace(awaited=self._awaited(row, number, position, run.length))
            self._at[key] = run
        return self._at[key]

    def until(self, run: Run, first: int, left: Sequence[int], seconds: float) -> Run | None:
        """Return the part of a run that is over after some seconds; None: it is not worth it.

        What is behind the run waits for nothing in that part but its last instruction.
        """
        if run.awaited:
            seconds = min(seconds, run.times[2][len(left) + run.awaited[0]])
        place = bisect_right(run.breaks, (seconds, len(run.times[2]))) - 1
        if place < 0:
            return None
        if place == len(run.breaks) - 1:
            return run
        _, count = run.breaks[place]
        length = count - len(left)
        if count < len(left) + 2:
            return None
        whole = self._key(first, left)
        if (whole, count) not in self._broken:
            streams = [self._task[uid].stream for uid in (*left, *range(first, first + length))]
            outside = tuple(place for place in run.outside if place < length)
            part = _run(run.times, streams, len(left), outside, run.uses)
            part = part._replace(awaited=self._awaited(*self._place[whole[0]], length))
            self._broken[whole, count] = part
        return self._broken[whole, count]

    def _key(self, first: int, left: Sequence[int]) -> tuple[int, ...]:
        return (self._entry[first], *[id(self._task[other]) for other in left])

    def _awaited(self, row: int, number: int, position: int, length: int) -> tuple[int, ...]:
        """Return the places in a run that something behind it waits for, in any of its calls."""
        columns, calls = self._program.columns[row], self._program.call_columns[row]
        if row not in self._last_owner:
            last = np.full(len(columns), -1, dtype=np.int64)
            owner = np.repeat(np.arange(len(columns)), np.diff(columns.begin))
            np.maximum.at(last, columns.waits, owner)
            self._last_owner[row] = last
        begins = calls.begin[calls.of_template(number)][:, None] + position
        last = self._last_owner[row][begins + np.arange(length)]
        return tuple(np.flatnonzero((last >= begins + length).any(axis=0)).tolist())

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
        outside = tuple(
            uid - first
            for uid in members[len(left) + 1 : count]
            if any(other < first for other in self._conditions.waits(uid))
        )
        uses = frozenset(used for uid in members[:count] for used in self._conditions.uses(uid))
        return _run(times, streams[:count], len(left), outside, uses)


def _run(
    times: Times,
    streams: Sequence[Stream],
    left: int,
    outside: tuple[int, ...],
    uses: frozenset[Hashable],
) -> Run:
    """Return a run of as many instructions as there are streams, some of them left of before."""
    posted, start, ends = (column[: len(streams)] for column in times)
    counts: dict[Stream, int] = {}
    free: dict[Stream, float] = {}
    for stream, end in zip(streams, ends, strict=True):
        counts[stream] = counts.get(stream, 0) + 1
        free[stream] = end
    within = (posted, start, ends)
    pairs = tuple(_breaks(streams, ends).items())
    return Run(len(streams) - left, outside, (), within, counts, free, uses, pairs)


def settled(streams: Sequence[Stream], ends: Sequence[float]) -> int:
    """Return how many instructions, from the first on, have ended when the last compute has.

    What goes on beyond that may be slowed by what comes behind the run.
    """
    return max(_breaks(streams, ends).values(), default=0)


def _breaks(streams: Sequence[Stream], ends: Sequence[float]) -> dict[float, int]:
    """Return when a compute ends and all before it have, and how many have ended then."""
    found: dict[float, int] = {}
    latest = 0.0
    for number, (stream, end) in enumerate(zip(streams, ends, strict=True), 1):
        latest = max(latest, end)
        if stream == COMPUTE_STREAM and end >= latest:
            found[end] = number
    return found
