"""The time until which nothing can begin to use a resource, from what its users still have to do.

An instruction is posted once its stream is free and all it waits for has ended. What a rank still
has to compute before that takes at least as long as it takes at full speed. So a bound is known
before anything is simulated, and what uses a resource up to then is not disturbed (the lookahead of
conservative discrete-event simulation: Chandy & Misra 1979).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from simulator.program.arrivals import NEVER
from simulator.program.stream import COMPUTE_STREAM
from simulator.program.walk import StreamQueue, Walk


class Lookahead:
    """Bounds of when instructions that have not begun can begin.

    Args:
        walk: tells how far all streams have got.
        stream_of: by uid, the stream of an instruction.
        seconds: by uid, what an instruction takes at full speed.
    """

    def __init__(
        self, walk: Walk, stream_of: Sequence[StreamQueue], seconds: Sequence[float]
    ) -> None:
        self._walk, self._stream_of, self._seconds = walk, stream_of, seconds
        self._before: dict[int, list[float]] = {}  # by compute stream, seconds before each uid

    def begins(self, stream: StreamQueue, now: float) -> float:
        """Return before when what is next on a stream cannot begin.

        Args:
            stream: any; what is under way on it has begun.
            now: nothing that has not begun begins earlier.
        """
        if stream.head - stream.busy >= len(stream.queue):
            return NEVER
        walk, uid = self._walk, stream.queue[stream.head - stream.busy]
        number = walk.meeting[uid]
        participants = walk.program.participants[number] if number >= 0 else (uid,)
        return max([self._posted(member, now) for member in participants])

    def _posted(self, uid: int, now: float) -> float:
        """Return before when an instruction cannot be posted."""
        walk, stream = self._walk, self._stream_of[uid]
        if stream.busy:
            return max(walk.posted[uid], now) if stream.queue[stream.head - 1] == uid else now
        bound = max(stream.free, now)
        for other in walk.waits(stream.queue[stream.head]):
            ended = walk.end[other]
            bound = max(bound, ended if ended >= 0 else self._ends(other, now))
        return bound

    def _ends(self, uid: int, now: float) -> float:
        """Return before when an instruction that has not ended cannot end."""
        stream = self._stream_of[uid]
        if stream.name != COMPUTE_STREAM:
            return now
        before = self._before.get(id(stream))
        if before is None:
            seconds = [self._seconds[member] for member in stream.queue]
            before = self._before[id(stream)] = list(accumulate(seconds, initial=0.0))
        behind = bisect_left(stream.queue, uid) + 1
        free = now if stream.busy else max(stream.free, now)
        return free + max(before[behind] - before[stream.head], 0.0)
