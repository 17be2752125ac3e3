"""The simulator, which interprets a program in virtual time.

A time is known as soon as those of the predecessors are (see `simulator.program.walk`), so a rank
is followed ahead of the clock as far as nothing else can touch it. A simpy event is spent only
where activities share a resource (`simulator.engine.contention`) and so stretch each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from functools import partial
from typing import Protocol

import numpy as np
import simpy

from simulator.engine.contention import Demand, SharedResources
from simulator.engine.unshared import unshared_times
from simulator.program.accept_queue import Decision
from simulator.program.arrivals import NEVER
from simulator.program.gc_pause import paused_gc
from simulator.program.instruction import Instruction
from simulator.program.leaping_walk import LeapingWalk
from simulator.program.program import Program
from simulator.program.runs import Times
from simulator.program.task import Task
from simulator.timeline.memory import memory_samples
from simulator.timeline.timeline import Floats, Timeline


class Costs(Protocol):
    """The questions that the engine asks about instructions.

    Subclasses that override only `seconds` have neither delays nor anything shared.

    Attributes:
        capacities: the amount that there is of each shared resource.
    """

    capacities: dict[str, float]

    def seconds(self, instruction: Instruction) -> float:
        """Return the duration at full speed, for communication from the last arrival on."""

    def delay(self, instruction: Instruction) -> float:
        """Return the time between being able to start (or to post) and doing so."""
        return 0.0

    def all_seconds(self, program: Program) -> list[float]:
        """Return `seconds` of every instruction."""
        return [self.seconds(instruction) for instruction in program]

    def all_delays(self, program: Program) -> list[float]:
        """Return `delay` of every instruction."""
        return [self.delay(instruction) for instruction in program]

    def delay_demand(self, instruction: Instruction) -> tuple[Demand, float]:
        """Return the shared resources that the delay waits for, and its weight.

        Without any, the delay is as long whatever else runs.
        """
        return (), 1.0

    def demand(self, participants: tuple[Instruction, ...]) -> Demand:
        """Return the shared resources used at full speed; without any, nothing can slow it."""
        return ()

    def weight(self, participants: tuple[Instruction, ...]) -> float:
        """Return the weight with which it gets its part of a resource that is short."""
        return 1.0

    def are_alike(self) -> bool:
        """Tell whether all instructions of one task on one rank have the same costs."""
        return False

    def own(self, rank: int) -> Set[str]:
        """Return the shared resources that nobody but this rank uses."""
        return frozenset()


def seconds_by_task(program: Program, seconds: Callable[[int, Task], float]) -> list[float]:
    """Return the seconds of every instruction, which depend on its rank and its task alone."""
    found: list[float] = []
    for rank, columns in zip(program.members, program.columns, strict=True):
        of_task = np.array([seconds(rank, task) for task in columns.tasks], dtype=np.float64)
        found += of_task[columns.task].tolist()
    return found


class Engine(LeapingWalk):
    """The simulation of one training step: a walk in which instructions take time.

    Args:
        program: what is simulated.
        costs: what its instructions take.
        record: see `Walk`.
    """

    def __init__(
        self, program: Program, costs: Costs, record: Sequence[Decision] | None = None
    ) -> None:
        self._costs = costs
        super().__init__(program, record)
        self._environment = simpy.Environment()
        self._shared = SharedResources(self._environment, costs.capacities)
        self._instructions: dict[int, Instruction] = {}
        self._seconds = costs.all_seconds(program)
        self._delays = costs.all_delays(program)

    def run(self) -> Timeline:
        """Simulate to the end and return the timeline.

        Raises:
            ValueError: the program deadlocks (`simulator.program.check` refuses such programs).
        """
        self.complete()
        for stuck in self.stuck():
            raise ValueError(f"deadlock: {stuck!r} never starts")
        timeline = _timeline(self.program, *map(np.array, (self.posted, self.start, self.end)))
        if self.arrivals is not None:
            timeline.decisions = self.arrivals.decisions
            timeline.idle = self.arrivals.idle_steps()
        return timeline

    def complete(self) -> None:
        """Go through everything that happens, in order of time.

        A request is served once nothing can happen any more that comes before it.
        """
        self.advance()
        arrivals, events = self.arrivals, self._environment
        if arrivals is None:
            events.run()
            return
        while min(events.peek(), arrivals.soonest()) < NEVER:
            if events.peek() <= arrivals.soonest():
                events.step()
            else:
                self.serve()
                self.advance()

    def leaps(self) -> bool:
        """Tell whether instructions of one template always take the same times."""
        return self._costs.are_alike()

    def is_alone(self, uid: int) -> bool:
        """Tell whether an instruction meets nobody and is slowed by its own rank at most."""
        if not super().is_alone(uid):
            return False
        if not self._costs.capacities:
            return True
        instruction = self.instruction(uid)
        demand = self._costs.demand((instruction,))
        own = self._costs.own(instruction.rank) if demand else ()
        return all(resource in own for resource, _ in demand)

    def timed(self, uids: Sequence[int]) -> Times:
        """Return the times of instructions of one rank that nothing else disturbs."""
        position = {uid: number for number, uid in enumerate(uids)}
        waits = [[position[w] for w in self.waits(uid) if w in position] for uid in uids]
        return Alone([self.instruction(uid) for uid in uids], waits, self._costs).times()

    def instruction(self, uid: int) -> Instruction:
        """Return an instruction by itself, as costs are asked about it."""
        found = self._instructions.get(uid)
        if found is None:
            found = self._instructions[uid] = self.program.instruction(uid)
        return found

    def post(self, uid: int, ready: float) -> None:
        """Post an instruction after the delay that its stream needs to wake."""
        delay = self._delays[uid]
        if delay > 0:
            demand, weight = self._costs.delay_demand(self.instruction(uid))
            if demand:
                self._share(ready, delay, demand, weight, partial(self.arrive, uid))
                return
        self.arrive(uid, ready + delay)

    def begin(self, participants: tuple[int, ...], time: float) -> None:
        """Start `participants` at `time`, which may be ahead of the clock."""
        seconds = self._seconds[participants[0]]
        if seconds > 0 and self._costs.capacities:
            members = tuple([self.instruction(uid) for uid in participants])
            demand = self._costs.demand(members)
            if demand:
                finish = partial(self.finish, participants)
                self._share(time, seconds, demand, self._costs.weight(members), finish)
                return
        self.finish(participants, time + seconds)

    def _share(
        self,
        time: float,
        seconds: float,
        demand: Demand,
        weight: float,
        then: Callable[[float], None],
    ) -> None:
        """Use shared resources from `time` on, for `seconds` at full speed; call `then(end)`."""

        def done(now: float) -> None:
            then(max(now, time))  # the clock rounds
            self.advance()

        timeout = self._environment.timeout(max(time - self._environment.now, 0.0))
        timeout.callbacks.append(lambda _: self._shared.start(seconds, demand, done, weight))


class CopiedCosts(Costs):
    """The costs of instructions of which a program has copies."""

    def __init__(self, costs: Costs, originals: Sequence[Instruction]) -> None:
        self.capacities = costs.capacities
        self._costs, self._originals = costs, originals

    def seconds(self, instruction: Instruction) -> float:
        """Return the duration of the original."""
        return self._costs.seconds(self._originals[instruction.uid])

    def delay(self, instruction: Instruction) -> float:
        """Return the delay of the original."""
        return self._costs.delay(self._originals[instruction.uid])

    def demand(self, participants: tuple[Instruction, ...]) -> Demand:
        """Return the demand of the originals."""
        return self._costs.demand(self._of(participants))

    def weight(self, participants: tuple[Instruction, ...]) -> float:
        """Return the weight of the originals."""
        return self._costs.weight(self._of(participants))

    def _of(self, participants: tuple[Instruction, ...]) -> tuple[Instruction, ...]:
        return tuple(self._originals[member.uid] for member in participants)


class Alone(Engine):
    """The simulation of instructions of one rank as if there were nothing else.

    Args:
        instructions: what is simulated, in order.
        waits: per instruction the positions of what it waits for among them.
        costs: of these instructions.
    """

    def __init__(
        self, instructions: Sequence[Instruction], waits: Sequence[Sequence[int]], costs: Costs
    ) -> None:
        copies: list[Instruction] = []
        for original, before in zip(instructions, waits, strict=True):
            after = [copies[position] for position in before]
            copies.append(Instruction(original.task, original.microbatch, after, original.step))
        program = Program([copies])
        program.participants = []  # they meet nobody
        super().__init__(program, CopiedCosts(costs, instructions))

    def times(self) -> Times:
        """Return when each of them is posted, starts and ends."""
        self.advance()
        self._environment.run()
        return self.posted, self.start, self.end


def simulate(program: Program, costs: Costs, record: Sequence[Decision] | None = None) -> Timeline:
    """Return the predicted timeline of one training step.

    Args:
        program: what is simulated.
        costs: what its instructions take.
        record: decisions about arrivals to repeat; None: the policies of the program decide.
    """
    with paused_gc():
        if not costs.capacities and costs.are_alike() and not any(costs.all_delays(program)):
            times = unshared_times(program, costs.all_seconds(program))
            if times is not None:
                return _timeline(program, *times)
        return Engine(program, costs, record).run()


def _timeline(program: Program, posted: Floats, start: Floats, end: Floats) -> Timeline:
    memory = memory_samples(program, posted, end)
    return Timeline.of_program(program, posted, start, end, memory=memory)
