"""The walk over a program's streams that gives every instruction its place in time.

Each stream is a queue. Its head can be posted once the stream is free and every instruction in
`after` has ended; it starts once every participant of its meeting has been posted.
"""

from __future__ import annotations

from simulator.program.instruction import Instruction
from simulator.program.program import Program


class Stream:
    """A queue of instructions of one rank, of which one at a time is under way.

    Attributes:
        beside: all streams of the rank by name, this one included.
    """

    __slots__ = ("queue", "head", "free", "busy", "listed", "beside")

    def __init__(self, beside: dict[str, Stream]) -> None:
        self.beside = beside
        self.queue: list[Instruction] = []
        self.head = 0
        self.free = 0.0
        self.busy = False
        self.listed = True  # in the walk's list of streams to follow


class Walk:
    """Follows every stream of a program as far as it gets.

    Here nothing takes any time, which suffices to find deadlocks. A subclass overrides `post` and
    `begin`, and calls `arrive` and `finish` with the times it decides on, at once or later.

    Attributes:
        posted: by uid, seconds, when an instruction arrived at its meeting.
        start: by uid, seconds, when it and all other participants had arrived.
        end: by uid, seconds; -1 until it is known.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        count = len(program)
        self.posted = [0.0] * count
        self.start = [0.0] * count
        self.end = [-1.0] * count
        self._meeting = [-1] * count
        for number, participants in enumerate(program.meetings):
            for member in participants:
                self._meeting[member.uid] = number
        self._absent = [len(participants) for participants in program.meetings]
        self._waiting: dict[int, list[Stream]] = {}  # by the uid that they wait for
        self._stream_of: list[Stream] = []
        self._todo: list[Stream] = []
        for instructions in program.ranks:
            streams: dict[str, Stream] = {}
            for instruction in instructions:
                stream = streams.get(instruction.task.stream)
                if stream is None:
                    stream = streams[instruction.task.stream] = Stream(streams)
                stream.queue.append(instruction)
                self._stream_of.append(stream)
            self._todo += streams.values()
        self._todo.reverse()

    def advance(self) -> None:
        """Follow the streams at which something has changed until none gets further."""
        while self._todo:
            stream = self._todo.pop()
            self._follow(stream)
            stream.listed = False

    def post(self, instruction: Instruction, ready: float) -> None:
        """Post an instruction that could start, as far as its own rank goes, at `ready`."""
        self.arrive(instruction, ready)

    def begin(self, participants: tuple[Instruction, ...], time: float) -> None:
        """Start the participants of a meeting, or one instruction that meets nobody, at `time`."""
        self.finish(participants, time)

    def arrive(self, instruction: Instruction, time: float) -> None:
        """Record that an instruction is posted at `time`; the last participant begins the rest."""
        uid = instruction.uid
        self.posted[uid] = time
        number = self._meeting[uid]
        if number < 0:
            self.start[uid] = time
            self.begin((instruction,), time)
            return
        self._absent[number] -= 1
        if self._absent[number] == 0:
            participants = self.program.meetings[number]
            time = max([self.posted[member.uid] for member in participants])
            for member in participants:
                self.start[member.uid] = time
            self.begin(participants, time)

    def finish(self, participants: tuple[Instruction, ...], time: float) -> None:
        """Record that `participants` end at `time`, and list the streams that may go on."""
        for member in participants:
            uid = member.uid
            self.end[uid] = time
            stream = self._stream_of[uid]
            stream.free, stream.busy = time, False
            self.note(stream)
            if uid in self._waiting:
                for waiting in self._waiting.pop(uid):
                    self.note(waiting)

    def stuck(self) -> list[Instruction]:
        """Return the first instruction that has not ended, for every rank that has one."""
        if min(self.end, default=0.0) >= 0:
            return []
        left = [
            [i for i in instructions if self.end[i.uid] < 0] for instructions in self.program.ranks
        ]
        return [instructions[0] for instructions in left if instructions]

    def _follow(self, stream: Stream) -> None:
        """Post everything at the head of `stream` whose predecessors have ended."""
        end, queue = self.end, stream.queue
        while not stream.busy and stream.head < len(queue):
            instruction = queue[stream.head]
            ready = stream.free
            for other in instruction.after:
                ended = end[other.uid]
                if ended < 0:
                    self._waiting.setdefault(other.uid, []).append(stream)
                    return
                if ended > ready:
                    ready = ended
            if self.leap(stream, instruction, ready):
                continue
            stream.head += 1
            stream.busy = True
            self.post(instruction, ready)

    def leap(self, stream: Stream, instruction: Instruction, ready: float) -> bool:
        """Take an instruction that could start at `ready`, and others, in one step; or do not."""
        return False

    def note(self, stream: Stream) -> None:
        """Note that a stream may get further."""
        if not stream.listed:
            stream.listed = True
            self._todo.append(stream)


def predecessors(program: Program) -> list[list[Instruction]]:
    """Return, by uid, what each instruction waits for on its own rank.

    That is the instruction before it in its stream, and those in `after`.
    """
    waits: list[list[Instruction]] = []
    for instructions in program.ranks:
        last: dict[str, Instruction] = {}
        for instruction in instructions:
            before = list(instruction.after)
            stream = instruction.task.stream
            if stream in last:
                before.append(last[stream])
            last[stream] = instruction
            waits.append(before)
    return waits
