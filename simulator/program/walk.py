"""The walk over a program's streams that gives every instruction its place in time.

Each stream is a queue. Its head can be posted once the stream is free and every instruction in
`after` has ended; it starts once every participant of its meeting has been posted. Where the order
of arrival decides who meets, policies are asked once nothing else gets further.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from simulator.program.accept_queue import Decision
from simulator.program.arrivals import Arrivals
from simulator.program.columns import Columns
from simulator.program.instruction import Instruction
from simulator.program.operations import MESSAGES
from simulator.program.program import Program
from simulator.program.stream import Stream

Floats = npt.NDArray[np.float64]

BY_ARRIVAL = -2
"""Stands for the number of a meeting where the order of arrival decides who meets."""


class StreamQueue:
    """A queue of instructions of one rank, of which one at a time is under way.

    Attributes:
        name: the stream of its tasks.
        queue: the uids of its instructions, in order.
        beside: all streams of the rank by name, this one included.
        meets: messages are queued here, whose partners are of another rank.
    """

    __slots__ = ("name", "queue", "head", "free", "busy", "listed", "beside", "meets")

    def __init__(
        self,
        name: Stream,
        queue: list[int],
        beside: dict[Stream, StreamQueue],
        meets: bool,
    ) -> None:
        self.name, self.queue, self.beside, self.meets = name, queue, beside, meets
        self.head = 0
        self.free = 0.0
        self.busy = False
        self.listed = True  # in the walk's list of streams to follow


class Walk:
    """Follows every stream of a program as far as it gets.

    Here nothing takes any time, which suffices to find deadlocks. A subclass overrides `post` and
    `begin`, and calls `arrive` and `finish` with the times it decides on, at once or later.

    Args:
        program: what is followed.
        record: decisions about arrivals to repeat; None: the policies of the program decide.

    Attributes:
        posted: by uid, seconds, when an instruction arrived at its meeting.
        start: by uid, seconds, when it and all other participants had arrived.
        end: by uid, seconds; -1 until it is known.
        arrivals: who waits to be accepted; None: nobody has to.
    """

    def __init__(self, program: Program, record: Sequence[Decision] | None = None) -> None:
        self.program = program
        count = len(program)
        self.posted = [0.0] * count
        self.start = [0.0] * count
        self.end = [-1.0] * count
        self.meeting = [-1] * count
        for number, participants in enumerate(program.participants):
            for uid in participants:
                self.meeting[uid] = number
        self.arrivals = Arrivals(program.queues, record) if program.queues else None
        for uid in self.arrivals.concerned if self.arrivals is not None else ():
            self.meeting[uid] = BY_ARRIVAL
        self._absent = [len(participants) for participants in program.participants]
        self._waiting: dict[int, list[StreamQueue]] = {}  # by the uid that they wait for
        self._stream_of: list[StreamQueue] = []
        self._streams: list[StreamQueue] = []
        self._begin: list[int] = []  # by uid, where its waits begin
        self._waits: list[int] = []  # uids
        for first, columns in zip(program.begins, program.columns, strict=True):
            streams = streams_of(columns, first)
            by_task = [streams[task.stream] for task in columns.tasks]
            self._stream_of += [by_task[number] for number in columns.task.tolist()]
            self._streams += streams.values()
            self._begin += (columns.begin[:-1] + len(self._waits)).tolist()
            self._waits += (columns.waits + first).tolist()
        self._begin.append(len(self._waits))
        self._todo = self._streams[::-1]

    def waits(self, uid: int) -> list[int]:
        """Return the uids of what an instruction names that must have ended before it."""
        return self._waits[self._begin[uid] : self._begin[uid + 1]]

    def advance(self) -> None:
        """Follow the streams at which something has changed until none gets further."""
        while self._todo:
            stream = self._todo.pop()
            self._follow(stream)
            stream.listed = False

    def complete(self) -> None:
        """Follow the streams to the end, with every meeting that policies allow."""
        self.advance()
        while self.serve():
            self.advance()

    def serve(self) -> bool:
        """Begin the next meeting of a request with a server; tell whether there is one."""
        found = self.arrivals.serve() if self.arrivals is not None else None
        if found is None:
            return False
        time, (accept, request) = found
        self.start[accept] = self.start[request] = time
        self.begin((request, accept), time)
        return True

    def post(self, uid: int, ready: float) -> None:
        """Post an instruction that could start, as far as its own rank goes, at `ready`."""
        self.arrive(uid, ready)

    def begin(self, participants: tuple[int, ...], time: float) -> None:
        """Start the participants of a meeting, or one instruction that meets nobody, at `time`."""
        self.finish(participants, time)

    def arrive(self, uid: int, time: float) -> None:
        """Record that an instruction is posted at `time`; the last participant begins the rest."""
        self.posted[uid] = time
        number = self.meeting[uid]
        if number == BY_ARRIVAL and self._arrive_at_queue(uid, time):
            return
        if number < 0:
            self.start[uid] = time
            self.begin((uid,), time)
            return
        self._absent[number] -= 1
        if self._absent[number] == 0:
            participants = self.program.participants[number]
            time = max([self.posted[member] for member in participants])
            for member in participants:
                self.start[member] = time
            self.begin(participants, time)

    def _arrive_at_queue(self, uid: int, time: float) -> bool:
        """Let an instruction wait for a decision; False: it begins like any other."""
        assert self.arrivals is not None
        is_idle = self.arrivals.arrive(uid, time)
        if is_idle:
            self.start[uid] = time
            self.finish((uid,), time)
        return is_idle or self.arrivals.waits(uid)

    def finish(self, participants: tuple[int, ...], time: float) -> None:
        """Record that `participants` end at `time`, and note the streams that may go on."""
        for uid in participants:
            self.end[uid] = time
            stream = self._stream_of[uid]
            stream.free, stream.busy = time, False
            self.note(stream)
            if uid in self._waiting:
                for waiting in self._waiting.pop(uid):
                    self.note(waiting)

    def times(self) -> Floats:
        """Return rows of when every instruction is posted, starts and ends; -1: it has not."""
        return np.array([self.posted, self.start, self.end])

    def stuck(self, end: Floats | None = None) -> list[Instruction]:
        """Return the first instruction that has not ended, for every rank that has one.

        Args:
            end: the last of `times`, if they are known already.
        """
        left = np.flatnonzero((self.times()[2] if end is None else end) < 0)
        lists = np.searchsorted(self.program.begins, left, side="right")
        _, first = np.unique(lists, return_index=True)
        return [self.program.instruction(int(uid)) for uid in left[first]]

    def _follow(self, stream: StreamQueue) -> None:
        """Post everything at the head of `stream` whose predecessors have ended."""
        end, queue = self.end, stream.queue
        while not stream.busy and stream.head < len(queue):
            uid = queue[stream.head]
            ready = stream.free
            for other in self._waits[self._begin[uid] : self._begin[uid + 1]]:
                ended = end[other]
                if ended < 0:
                    self._waiting.setdefault(other, []).append(stream)
                    return
                if ended > ready:
                    ready = ended
            if self.leap(stream, uid, ready):
                continue
            stream.head += 1
            stream.busy = True
            self.post(uid, ready)

    def leap(self, stream: StreamQueue, uid: int, ready: float) -> bool:
        """Take an instruction that could start at `ready`, and others, in one step; or do not."""
        return False

    def note(self, stream: StreamQueue) -> None:
        """Note that a stream may get further."""
        if not stream.listed:
            stream.listed = True
            self._todo.append(stream)


def streams_of(columns: Columns, first: int) -> dict[Stream, StreamQueue]:
    """Return the streams of one list, by name, in the order in which they are used first.

    Args:
        columns: the instructions of the list.
        first: the uid of the first of them.
    """
    messages = {task.stream for task in columns.tasks if task.op in MESSAGES}
    streams: dict[Stream, StreamQueue] = {}
    for name, positions in columns.positions(lambda task: task.stream).items():
        queue = (positions + first).tolist()
        streams[name] = StreamQueue(name, queue, streams, name in messages)
    return streams


def predecessors(program: Program) -> list[list[Instruction]]:
    """Return, by uid, what each instruction waits for on its own rank.

    That is the instruction before it in its stream, and those in `after`.
    """
    waits: list[list[Instruction]] = []
    for instructions in program.ranks:
        last: dict[Stream, Instruction] = {}
        for instruction in instructions:
            before = list(instruction.after)
            stream = instruction.task.stream
            if stream in last:
                before.append(last[stream])
            last[stream] = instruction
            waits.append(before)
    return waits
