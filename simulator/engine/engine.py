"""The simulator: interprets a program in virtual time.

Semantics are those of `simulator.program`. Each stream is a queue; its head starts when
the stream is free, everything in `after` has ended and all participants have arrived.
Those times are known as soon as the predecessors' are, so a rank is followed ahead of the
clock as far as nothing else can touch it, and a simpy event is spent only where activities
share a resource (`simulator.engine.contention`) and so stretch each other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
import simpy

from simulator.engine.contention import Demand, SharedResources
from simulator.program.gc_pause import paused_gc
from simulator.program.instruction import Instruction
from simulator.program.program import Program
from simulator.timeline.memory import memory_samples
from simulator.timeline.timeline import Timeline


class Costs(Protocol):
    """What the engine asks about an instruction. Subclasses that say nothing else have
    neither delays nor anything shared.
    """

    capacities: dict[str, float]
    """Of each shared resource."""

    def seconds(self, instruction: Instruction) -> float:
        """Duration at full speed, for communication from the last arrival on."""

    def delay(self, instruction: Instruction) -> float:
        """Time between being able to start (or to post) and doing so."""
        return 0.0

    def delay_demand(self, instruction: Instruction) -> tuple[Demand, float]:
        """Shared resources that its delay waits for, and with which weight; empty: it is as long
        whatever else runs.
        """
        return (), 1.0

    def demand(self, participants: tuple[Instruction, ...]) -> Demand:
        """Shared resources used at full speed; empty: nothing can slow it."""
        return ()

    def weight(self, participants: tuple[Instruction, ...]) -> float:
        """With which it gets its part of a resource that is short."""
        return 1.0


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
        self.seconds = [costs.seconds(instruction) for instruction in program]
        self.delays = [costs.delay(instruction) for instruction in program]
        count = len(program)
        self.posted = [0.0] * count
        self.start = [0.0] * count
        self.end = [-1.0] * count
        self.meeting = [-1] * count
        for number, participants in enumerate(program.meetings):
            for member in participants:
                self.meeting[member.uid] = number
        self.absent = [len(participants) for participants in program.meetings]
        self.waiting: dict[int, list[_Stream]] = {}
        self.stream_of: list[_Stream] = []
        self.todo: list[_Stream] = []

    def run(self) -> Timeline:
        """Simulate to the end.

        Raises:
            ValueError: the program deadlocks (`simulator.program.check` refuses such programs).
        """
        for instructions in self.program.ranks:
            streams: dict[str, _Stream] = {}
            for instruction in instructions:
                stream = streams.get(instruction.task.stream)
                if stream is None:
                    stream = streams[instruction.task.stream] = _Stream()
                stream.queue.append(instruction)
                self.stream_of.append(stream)
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
        end, queue = self.end, stream.queue
        while not stream.busy and stream.head < len(queue):
            instruction = queue[stream.head]
            ready = stream.free
            for other in instruction.after:
                ended = end[other.uid]
                if ended < 0:
                    self.waiting.setdefault(other.uid, []).append(stream)
                    return
                if ended > ready:
                    ready = ended
            stream.head += 1
            stream.busy = True
            delay = self.delays[instruction.uid]
            demand, weight = self.costs.delay_demand(instruction) if delay > 0 else ((), 1.0)
            if demand:
                post = partial(self._post, instruction)
                self._share(ready, delay, demand, weight, post)
            else:
                self._post(instruction, ready + delay)

    def _post(self, instruction: Instruction, time: float) -> None:
        """It is there at `time`, and starts if it is the last of its participants."""
        uid = instruction.uid
        self.posted[uid] = time
        number = self.meeting[uid]
        if number < 0:
            self._begin((instruction,), time)
            return
        self.absent[number] -= 1
        if self.absent[number] == 0:
            participants = self.program.meetings[number]
            self._begin(participants, max(self.posted[member.uid] for member in participants))

    def _begin(self, participants: tuple[Instruction, ...], time: float) -> None:
        """Everyone is there: `participants` start at `time`, which may be ahead of the clock."""
        seconds = self.seconds[participants[0].uid]
        for member in participants:
            self.start[member.uid] = time
        demand = self.costs.demand(participants) if seconds > 0 else ()
        if not demand:
            self._finish(participants, time + seconds)
            return
        finish = partial(self._finish, participants)
        self._share(time, seconds, demand, self.costs.weight(participants), finish)

    def _share(
        self,
        time: float,
        seconds: float,
        demand: Demand,
        weight: float,
        then: Callable[[float], None],
    ) -> None:
        """From `time` on, use shared resources for `seconds` at full speed; `then(end)`."""

        def done(now: float) -> None:
            then(max(now, time))  # the clock rounds
            self._drain()

        timeout = self.environment.timeout(max(time - self.environment.now, 0.0))
        timeout.callbacks.append(lambda _: self.shared.start(seconds, demand, done, weight))

    def _finish(self, participants: tuple[Instruction, ...], time: float) -> None:
        for member in participants:
            uid = member.uid
            self.end[uid] = time
            stream = self.stream_of[uid]
            stream.free, stream.busy = time, False
            if not stream.listed:
                stream.listed = True
                self.todo.append(stream)
            if uid in self.waiting:
                for waiting in self.waiting.pop(uid):
                    if not waiting.listed:
                        waiting.listed = True
                        self.todo.append(waiting)


def simulate(program: Program, costs: Costs) -> Timeline:
    """The predicted timeline of one training step."""
    with paused_gc():
        return Engine(program, costs).run()
