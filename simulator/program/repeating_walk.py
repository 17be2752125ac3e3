"""A walk that, where a program repeats itself, takes all that is alike in one step.

Once all streams are where they were before, a period ago, but a number of like instructions
further on, and everything that they still depend on has happened the same time later, then what
follows is what followed then, as long as the lists are alike. So those periods are skipped: their
times are those of the last one, a number of periods later.

Skipped time is not added to what is still to come, so that a clock need not jump: times are kept as
if the skipped periods had not been, and put right at the end (`simulator.program.skipped_periods`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from simulator.program.accept_queue import Decision
from simulator.program.columns import Integers
from simulator.program.leaping_walk import LeapingWalk
from simulator.program.program import Program
from simulator.program.repetition import Repetition
from simulator.program.skipped_periods import Skip, blocks, put_right
from simulator.program.stream import COMPUTE_STREAM
from simulator.program.walk import Floats, StreamQueue

TOLERANCE = 1e-11
"""The share of a period by which times may miss being exactly a period later."""

ROUNDING = 1e-15
"""The share of times by which rounding may change their difference."""

KEPT = 4
"""The number of moments with the same instructions at the heads of streams that are compared."""

Going = Mapping[tuple[int, ...], tuple[Hashable, Sequence[float], Sequence[float]]]
"""The activities under way, by the uids of their participants: what must be equal from one period
to the next, the moments that must be a period later, and the figures that must be the same but for
rounding."""


class Moment(NamedTuple):
    """The place of every stream at one moment of a walk.

    Attributes:
        head: by stream, the index of the first instruction that has not ended.
        free: by stream, when it was free last.
        going: what is under way.
    """

    head: Integers
    free: Floats
    going: Going


class RepeatingWalk(LeapingWalk):
    """A walk that skips periods that are like those before; its times are those of `Walk`.

    It looks for them whenever one stream, the computing one of the last list, begins a call of the
    template that this list has most.
    """

    def __init__(self, program: Program, record: Sequence[Decision] | None = None) -> None:
        super().__init__(program, record)
        self._skips: list[Skip] = []
        self._seen: dict[bytes, list[Moment]] = {}
        self._marks: list[int] = []
        self._next = 0  # of the marks
        if self._runs is not None:
            self._watch()

    def _watch(self) -> None:
        """Choose the moments at which to look for a repetition."""
        calls = self.program.call_columns[-1]
        watched = self._streams[-1].beside.get(COMPUTE_STREAM) if self._streams else None
        if watched is None or not calls.calls:
            return
        most = int(np.argmax(np.bincount(calls.template)))
        begins = self.program.begins[-1] + calls.begin[calls.of_template(most)]
        self._watched = watched
        self._marks = np.searchsorted(watched.queue, begins).tolist()

    def complete(self) -> None:
        """Follow the streams to the end, with every meeting that policies allow."""
        if self._marks:
            self.advance_looking()
        super().complete()

    def advance_looking(self) -> None:
        """Follow the streams until none gets further, and skip what repeats itself."""
        while self._todo:
            stream = self._todo.pop()
            self._follow(stream)
            stream.listed = False
            self.look()

    def going(self) -> Going:
        """Return what is under way; here nothing takes any time."""
        return {}

    def carry(self, image: Callable[[int], int]) -> None:
        """Let what is under way be that of other instructions, which are like them."""

    def look(self) -> None:
        """Skip what repeats itself, if it is time to look and something does."""
        if self._next >= len(self._marks) or self._watched.head <= self._marks[self._next]:
            return
        while self._next < len(self._marks) and self._watched.head > self._marks[self._next]:
            self._next += 1
        now = Moment(
            np.array([stream.head - stream.busy for stream in self._streams], dtype=np.int64),
            np.array([stream.free for stream in self._streams]),
            self.going(),
        )
        alike = self._seen.setdefault(self._signature(now), [])
        for before in reversed(alike):
            if self._skip(before, now):
                return
        alike.append(now)
        del alike[:-KEPT]

    def _signature(self, now: Moment) -> bytes:
        """Return what the heads of all streams are."""
        repetition = self._repetition
        at_end = now.head == repetition.length
        uids = repetition.order[np.where(at_end, 0, repetition.first + now.head)]
        busy = np.array([stream.busy for stream in self._streams])
        entries: Integers = np.where(at_end, -1, repetition.entry[uids])
        return bytes(entries * 2 + busy)

    @cached_property
    def _repetition(self) -> Repetition:
        return Repetition(self.program, [stream.queue for stream in self._streams])

    def _skip(self, before: Moment, now: Moment) -> bool:
        """Skip the periods that are like that between two moments; tell whether there are any."""
        shift = now.head - before.head
        moves = shift > 0
        if not moves.any():
            return False
        later = now.free - before.free
        seconds = float(later[moves][0])
        slack = seconds * TOLERANCE + float(now.free.max()) * ROUNDING
        if (np.abs(later[moves] - seconds) > slack).any() or not self._goes_on(
            before, now, shift, seconds, slack
        ):
            return False
        limits = self._repetition.limits(shift, before.head) + shift
        periods = self._periods(now, shift, limits)
        if periods < 1 or not self._is_later(before, now, shift, limits, seconds, slack):
            return False
        self._jump(Skip(now.head, shift, periods, seconds, np.array(self.end)))
        return True

    def _goes_on(
        self, before: Moment, now: Moment, shift: Integers, seconds: float, slack: float
    ) -> bool:
        """Tell whether what is under way is what was under way a period ago."""
        if len(before.going) != len(now.going):
            return False
        for uids, (what, moments, figures) in before.going.items():
            later = tuple(self._repetition.further(np.array(uids), shift).tolist())
            if later not in now.going:
                return False
            what_now, moments_now, figures_now = now.going[later]
            if what != what_now:
                return False
            if any(abs(b - a - seconds) > slack for a, b in zip(moments, moments_now, strict=True)):
                return False
            if any(abs(b - a) > slack for a, b in zip(figures, figures_now, strict=True)):
                return False
        return True

    def _periods(self, now: Moment, shift: Integers, limits: Integers) -> int:
        """Return how many periods the lists go on alike, and what stands still goes on waiting."""
        moves = shift > 0
        periods = int(((limits - now.head - 1)[moves] // shift[moves]).min())
        for stream, moved in zip(self._streams, moves.tolist(), strict=True):
            if not moved and periods > 0:
                periods = min(periods, self._still_waits(stream, now, shift))
        return periods

    def _still_waits(self, stream: StreamQueue, now: Moment, shift: Integers) -> int:
        """Return for how many periods the head of a stream that stands still cannot go on."""
        if stream.busy:
            uid = stream.queue[stream.head - 1]
            number = self.meeting[uid]
            awaited = list(self.program.participants[number]) if number >= 0 else []
        elif stream.head < len(stream.queue):
            awaited = self.waits(stream.queue[stream.head])
        else:
            return len(self.end)
        most = 0
        for other in awaited:
            number = self._repetition.stream[other]
            ahead = int(self._repetition.index[other] - now.head[number])
            is_there = ahead == 0 and self._streams[number].busy if stream.busy else ahead < 0
            if ahead >= 0 and not is_there:
                most = max(most, ahead // int(shift[number]) if shift[number] else len(self.end))
        return most

    def _is_later(
        self,
        before: Moment,
        now: Moment,
        shift: Integers,
        limits: Integers,
        seconds: float,
        slack: float,
    ) -> bool:
        """Tell whether all that the next periods wait for ended a period after what is like it."""
        repetition, end = self._repetition, np.array(self.end)
        owner, waited = repetition.owner, repetition.waited
        of_owner, of_waited = repetition.stream[owner], repetition.stream[waited]
        counts = repetition.index[owner] >= now.head[of_owner]
        counts &= repetition.index[owner] < limits[of_owner]
        counts &= repetition.index[waited] < now.head[of_waited]
        owner, waited = owner[counts], waited[counts]
        still = shift[repetition.stream[waited]] == 0
        if (end[waited[still]] > before.free[repetition.stream[owner[still]]]).any():
            return False
        waited = np.unique(waited[~still])
        earlier = repetition.further(waited, -shift)
        if (earlier < 0).any():
            return False
        known = (end[waited] >= 0) | (end[earlier] >= 0)
        later = (end[waited] - end[earlier])[known]
        return not (np.abs(later - seconds) > slack).any()

    def _jump(self, skip: Skip) -> None:
        """Go on behind skipped periods; all that has happened is so much earlier from now on."""
        repetition = self._repetition
        back = skip.periods * skip.seconds
        end = np.where(skip.end >= 0, np.maximum(skip.end - back, 0.0), -1.0)
        for source, target in blocks(skip, repetition):
            ends = skip.end[source] - back + skip.seconds * np.arange(1, skip.periods + 1)[:, None]
            end[target] = np.where(skip.end[source] >= 0, np.maximum(ends, 0.0), -1.0)
        far = skip.shift * skip.periods

        def image(uid: int) -> int:
            number = repetition.stream[uid]
            place = repetition.first[number] + repetition.index[uid] + far[number]
            return int(repetition.order[place])

        waiting: dict[int, list[StreamQueue]] = {}
        moved = {id(s) for s, number in zip(self._streams, far.tolist(), strict=True) if number}
        for uid, streams in self._waiting.items():
            for stream in streams:
                what = image(uid) if id(stream) in moved else uid
                waiting.setdefault(what, []).append(stream)
        self._waiting = waiting
        for stream, number in zip(self._streams, far.tolist(), strict=True):
            if stream.busy:
                uid = stream.queue[stream.head - 1]
                if number:
                    self._take_place(uid, image(uid))
                else:
                    self.posted[uid] -= back
            if not number:
                stream.free = max(stream.free - back, 0.0)
            stream.head += number
        for stream in self._streams:
            if stream.busy:
                end[stream.queue[stream.head - 1]] = -1.0
        self.end = end.tolist()
        self.carry(image)
        self._skips.append(skip)
        self._seen.clear()

    def _take_place(self, uid: int, image: int) -> None:
        """Let an instruction be where another one is, which has been posted."""
        self.posted[image], self.start[image] = self.posted[uid], self.start[uid]
        if self.meeting[uid] >= 0:
            self._absent[self.meeting[image]] = self._absent[self.meeting[uid]]

    def times(self) -> Floats:
        """Return rows of when every instruction is posted, starts and ends; -1: it has not."""
        columns = super().times()
        if self._skips:
            put_right(columns, self._skips, self._repetition)
        return columns
