"""The lists of a program compared with themselves: like instructions, a number further on.

A pipeline in its steady phase, or the microbatches of an accumulated gradient, do the same again
and again. An instruction is *like* another one of its stream if both are the same entry of a
template, wait for like instructions, the same number further on, and meet like ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from simulator.program.columns import Integers
from simulator.program.program import Program

Flags = npt.NDArray[np.bool_]


class Repetition:
    """The streams of a program side by side, to be compared with themselves further on.

    Args:
        program: it must have calls.
        queues: the uids of every stream, in order.

    Attributes:
        order: the uids of all streams, one stream behind the other.
        first: by stream, where its uids begin in `order`.
        length: by stream, the number of its uids.
        stream: by uid, the number of its stream.
        index: by uid, its position in its stream.
        entry: by uid, the number of its entry among those of all templates of all lists.
        owner, waited: the uids of both sides of every wait.
    """

    def __init__(self, program: Program, queues: Sequence[Sequence[int]]) -> None:
        self._queues = program.meeting_queues
        self.length = np.array([len(queue) for queue in queues], dtype=np.int64)
        self.first = np.cumsum(self.length) - self.length
        self.order = np.concatenate([np.array(queue, dtype=np.int64) for queue in queues])
        count = self.order.size
        self.stream = np.empty(count, dtype=np.int64)
        self.stream[self.order] = np.repeat(np.arange(len(queues)), self.length)
        self.index = np.empty(count, dtype=np.int64)
        self.index[self.order] = np.arange(count) - np.repeat(self.first, self.length)
        self._meeting = np.full(count, -1, dtype=np.int64)
        number = 0
        for together in self._queues:
            self._meeting[together] = np.arange(number, number + len(together))[:, None]
            number += len(together)
        entries, counts, waits, known = [], [], [], 0
        for first, columns, calls in zip(
            program.begins, program.columns, program.call_columns, strict=True
        ):
            lengths = np.diff(calls.begin)
            begins = known + calls.first[calls.template] - calls.begin[:-1]
            entries.append(np.repeat(begins, lengths) + np.arange(len(calls)))
            known += int(calls.place.size)
            counts.append(np.diff(columns.begin))
            waits.append(columns.waits + first)
        self.entry = np.concatenate(entries)
        self._waits = np.concatenate(counts)
        self._begin = np.cumsum(self._waits) - self._waits
        self.owner = np.repeat(np.arange(count), self._waits)
        self.waited = np.concatenate(waits)
        self._limits: dict[bytes, Integers] = {}

    def further(self, uids: Integers, shift: Integers) -> Integers:
        """Return the uids that are further on in their streams; -1: the stream is at its end.

        Args:
            uids: of instructions.
            shift: by stream, how far.
        """
        streams = self.stream[uids]
        index = self.index[uids] + shift[streams]
        inside = (index >= 0) & (index < self.length[streams])
        found = self.order[np.where(inside, self.first[streams] + index, 0)]
        further: Integers = np.where(inside, found, -1)
        return further

    def limits(self, shift: Integers, begin: Integers) -> Integers:
        """Return, by stream, the first index from which on instructions are not alike.

        All from `begin` up to there are like the one that is `shift` further on.
        """
        key = shift.tobytes()
        if key not in self._limits:
            self._limits[key] = np.flatnonzero(~self._are_alike(shift)[self.order])
        places = self._limits[key]  # in `order`, where they are not alike
        next_one = np.searchsorted(places, self.first + begin)
        ends = self.first + self.length
        found = np.append(places, self.order.size)[next_one]
        limits: Integers = np.minimum(found, ends) - self.first
        return limits

    def _are_alike(self, shift: Integers) -> Flags:
        """Tell, by uid, whether an instruction is like the one that is `shift` further on."""
        image = self.further(np.arange(self.order.size), shift)
        alike: Flags = image >= 0
        image = np.where(alike, image, 0)
        alike &= self.entry[image] == self.entry
        alike &= self._waits[image] == self._waits
        place = (
            np.arange(self.waited.size) - self._begin[self.owner] + self._begin[image[self.owner]]
        )
        theirs = self.waited[np.minimum(place, max(self.waited.size - 1, 0))]
        alike[self.owner[theirs != self.further(self.waited, shift)]] = False
        for together in self._queues:
            meetings = self._meeting[image[together]]
            differ = (meetings != meetings[:, :1]).any(axis=1) | ~alike[together].all(axis=1)
            alike[together[differ]] = False
        return alike
