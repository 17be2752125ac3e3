"""The simulator: interprets a program in virtual time.

Semantics are those of `simulator.program`. Each stream is a queue; its head starts when
the stream is free, everything in `after` has ended and all participants have arrived.
Those times are known as soon as the predecessors' are, so a rank is followed ahead of the
clock as far as nothing else can touch it, and a simpy event is spent only where activities
share a resource (`simulator.contention`) and so stretch each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import simpy

from simulator.contention import Demand, SharedResources
from simulator.memory import memory_samples
from simulator.program import COMPUTE_STREAM, Instruction, Program
from simulator.timeline import Timeline


class Costs(Protocol):
    """What the engine asks about an instruction."""

    capacities: dict[str, float]
    """Of each shared resource."""

    def seconds(self, instruction: Instruction) -> float:
        """Duration at full speed, for communication from the last arrival on."""

    def delay(self, instruction: Instruction) -> float:
        """Time between being able to start (or to post) and doing so."""

    def demand(self, participants: tuple[Instruction, ...]) -> Demand:
        """Shared resources used at full speed; empty: nothing can slow it."""


class _Stream:
    __slots__ = ("queue", "head", "free", "busy", "listed")

    def __init__(self) -> None:
        self.queue: list[Instruction] = []
        self.head = 0
        self.free = 0.0
        self.busy = False
        self.listed = True  # in the engine's list of streams to follow


class Engine:
    """One simulation; `run` returns the timeline."""

    def __init__(self, program: Program, costs: Costs):
        self.program, self.costs = program, costs
        self.environment = simpy.Environment()
        self.shared = SharedResources(self.environment, costs.capacities)
        count = len(program)
        self.posted = [0.0] * count
        self.start = [0.0] * count
        self.end = [-1.0] * count
        self.meeting: dict[int, tuple[Instruction, ...]] = {}
        for participants in program.meetings:
            for member in participants:
                self.meeting[member.uid] = participants
        self.absent = {id(p): len(p) for p in program.meetings}
        self.waiting: dict[int, list[_Stream]] = {}
        self.stream_of: dict[int, _Stream] = {}
        self.todo: list[_Stream] = []

    def run(self) -> Timeline:
        """Simulate to the end.

        Raises:
            ValueError: the program deadlocks (`simulator.validate` refuses such programs).
        """
        for instructions in self.program.ranks:
            streams: dict[str, _Stream] = {}
            for instruction in instructions:
                name = instruction.task.stream
                if name not in streams:
                    streams[name] = _Stream()
                stream = streams[name]
                stream.queue.append(instruction)
                if name != COMPUTE_STREAM:
                    self.stream_of[instruction.uid] = stream
            self.todo += streams.values()
        self.todo.reverse()
        self._drain()
        self.environment.run()
        if self.end and min(self.end) < 0:
            stuck = next(i for i in self.program if self.end[i.uid] < 0)
            raise ValueError(f"deadlock: {stuck!r} never starts")
        posted, start, end = (np.array(column) for column in (self.posted, self.start, self.end))
        memory = memory_samples(self.program, posted, end)
        return Timeline.of_program(self.program, posted, start, end, memory=memory)

    def _drain(self) -> None:
        while self.todo:
            stream = self.todo.pop()
            self._follow(stream)
            stream.listed = False

    def _follow(self, stream: _Stream) -> None:
        """Start everything at the head of `stream` whose predecessors have ended."""
        end, costs = self.end, self.costs
        while not stream.busy and stream.head < len(stream.queue):
            instruction = stream.queue[stream.head]
            ready = stream.free
            for other in instruction.after:
                ended = end[other.uid]
                if ended < 0:
                    self.waiting.setdefault(other.uid, []).append(stream)
                    return
                if ended > ready:
                    ready = ended
            ready += costs.delay(instruction)
            uid = instruction.uid
            self.posted[uid] = ready
            stream.head += 1
            stream.busy = True
            participants = self.meeting.get(uid)
            if participants is None:
                self._begin((instruction,), ready, (stream,))
                continue
            self.absent[id(participants)] -= 1
            if self.absent[id(participants)] == 0:
                arrived = max(self.posted[member.uid] for member in participants)
                streams = tuple(self.stream_of[member.uid] for member in participants)
                self._begin(participants, arrived, streams)

    def _begin(
        self, participants: tuple[Instruction, ...], time: float, streams: tuple[_Stream, ...]
    ) -> None:
        seconds = self.costs.seconds(participants[0])
        demand = self.costs.demand(participants)
        for member in participants:
            self.start[member.uid] = time
        if not demand or seconds <= 0:
            self._finish(participants, streams, time + seconds)
            return

        def finish(now: float) -> None:
            self._finish(participants, streams, max(now, time))  # the clock rounds
            self._drain()

        self._at(time, lambda: self.shared.start(seconds, demand, finish))

    def _at(self, time: float, action: Callable[[], None]) -> None:
        timeout = self.environment.timeout(max(time - self.environment.now, 0.0))
        timeout.callbacks.append(lambda _: action())

    def _finish(
        self, participants: tuple[Instruction, ...], streams: tuple[_Stream, ...], time: float
    ) -> None:
        for member, stream in zip(participants, streams, strict=True):
            self.end[member.uid] = time
            stream.free, stream.busy = time, False
            self._list(stream)
            for waiting in self.waiting.pop(member.uid, ()):
                self._list(waiting)

    def _list(self, stream: _Stream) -> None:
        if not stream.listed:
            stream.listed = True
            self.todo.append(stream)


def simulate(program: Program, costs: Costs) -> Timeline:
    """The predicted timeline of one training step."""
    return Engine(program, costs).run()
