"""The simulator, which interprets a program in virtual time.

A time is known as soon as those of the predecessors are (see `simulator.program.walk`), so a rank
is followed ahead of the clock as far as nothing else can touch it. A simpy event is spent only
where activities share a resource (`simulator.engine.contention`) and so stretch each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np
import simpy

from simulator.cluster.resource import Resource
from simulator.engine.contention import Demand, SharedResources
from simulator.engine.lookahead import Lookahead
from simulator.engine.questions import CopiedCosts, Costs
from simulator.engine.unshared import unshared_times
from simulator.engine.use import Use
from simulator.program.accept_queue import Decision
from simulator.program.arrivals import NEVER
from simulator.program.errors import ProgramError
from simulator.program.gc_pause import paused_gc
from simulator.program.instruction import Instruction
from simulator.program.program import Program
from simulator.program.repeating_walk import Going, RepeatingWalk
from simulator.program.runs import Run, Times
from simulator.program.stream import COMPUTE_STREAM
from simulator.program.walk import StreamQueue
from simulator.timeline.memory import memory_samples
from simulator.timeline.timeline import Floats, Timeline


class Engine(RepeatingWalk):
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
        self._uses: dict[int, Use] = {}
        self._instructions: dict[int, Instruction] = {}
        self._likeness = costs.likeness(program)
        self._demands: dict[tuple[int, ...], tuple[Demand, float]] = {}
        self._alone: dict[tuple[object, ...], Times] = {}
        self._seconds = costs.all_seconds(program)
        self._delays = costs.all_delays(program)
        self._launches = costs.all_launches(program)
        self._lookahead = Lookahead(self, self._stream_of, self._seconds)

    def run(self) -> Timeline:
        """Simulate to the end and return the timeline.

        Raises:
            ProgramError: the program deadlocks (`simulator.program.check` refuses such programs).
        """
        self.complete()
        times = self.times()
        for stuck in self.stuck(times[2]):
            raise ProgramError(f"deadlock: {stuck!r} never starts")
        if self.arrivals is None:
            return _timeline(self.program, times)
        decisions, idle = self.arrivals.decisions, self.arrivals.idle
        return _timeline(self.program, times, decisions=decisions, idle=idle)

    def complete(self) -> None:
        """Go through everything that happens, in order of time.

        A request is served once nothing can happen any more that comes before it.
        """
        self.advance_looking()
        arrivals, events = self.arrivals, self._environment
        if arrivals is None:
            while events.peek() < NEVER:
                events.step()
                self.look()
            return
        while (soonest := arrivals.soonest()) < NEVER or events.peek() < NEVER:
            if soonest < events.peek():
                self.serve()
                self.advance()
            else:
                events.step()

    def leaps(self) -> bool:
        """Tell whether instructions of one template always take the same times."""
        return self._costs.are_alike()

    def is_alone(self, uid: int) -> bool:
        """Tell whether an instruction meets nobody, and nobody computes on what it uses."""
        if not super().is_alone(uid):
            return False
        stream = self._stream_of[uid]
        return all(
            other.beside is stream.beside or other.name != COMPUTE_STREAM
            for resource in self.uses(uid)
            for other in self._users[resource]
        )

    def uses(self, uid: int) -> Iterable[Resource]:
        """Return what an instruction uses that not only its rank uses."""
        demand, _ = self.demand((uid,))
        own = self._costs.own(self.instruction(uid).rank) if demand else ()
        return [resource for resource, _ in demand if resource not in own]

    def undisturbed_until(self, run: Run, stream: StreamQueue) -> float:
        """Return until when nothing else can use what a run of the rank of a stream uses."""
        now, soonest = self._environment.now, NEVER
        for resource in cast(frozenset[Resource], run.uses):
            if self._shared.is_used(resource):
                return now
            for other in self._users[resource]:
                if other.beside is not stream.beside or other.meets:
                    soonest = min(soonest, self._lookahead.begins(other, now))
        return soonest

    @cached_property
    def _users(self) -> dict[Resource, list[StreamQueue]]:
        """The streams whose instructions use a resource."""
        found: dict[Resource, dict[int, StreamQueue]] = {}
        for first, columns in zip(self.program.begins, self.program.columns, strict=True):
            _, examples = np.unique(columns.task, return_index=True)
            for uid in (examples + first).tolist():
                stream = self._stream_of[uid]
                for resource, _ in self.demand((uid,))[0]:
                    found.setdefault(resource, {})[id(stream)] = stream
        return {resource: list(streams.values()) for resource, streams in found.items()}

    def timed(self, uids: Sequence[int]) -> Times:
        """Return the times of instructions of one rank that nothing else disturbs.

        They depend on nothing but what is in the key, so that ranks that do the same share them.
        """
        position = {uid: number for number, uid in enumerate(uids)}
        waits = [[position[w] for w in self.waits(uid) if w in position] for uid in uids]
        resources: dict[Resource, int] = {}
        key: list[object] = []
        for uid, before in zip(uids, waits, strict=True):
            demand, weight = self.demand((uid,))
            amounts = [
                (resources.setdefault(name, len(resources)), amount) for name, amount in demand
            ]
            key += self._stream_of[uid].name, self._seconds[uid], self._delays[uid], weight
            key += tuple(amounts), tuple(before)
        key += [self._costs.capacities[name] for name in resources]
        whole = tuple(key)
        if whole not in self._alone:
            instructions = [self.instruction(uid) for uid in uids]
            self._alone[whole] = Alone(instructions, waits, self._costs).alone()
        return self._alone[whole]

    def demand(self, participants: tuple[int, ...]) -> tuple[Demand, float]:
        """Return what participants take of shared resources, and their weight."""
        if not self._costs.capacities:
            return (), 1.0
        key = tuple([self._likeness[uid] for uid in participants])
        found = self._demands.get(key)
        if found is None:
            members = tuple([self.instruction(uid) for uid in participants])
            demand = self._shared.limited(self._costs.demand(members))
            found = self._demands[key] = demand, self._costs.weight(members)
        return found

    def instruction(self, uid: int) -> Instruction:
        """Return an instruction by itself, as costs are asked about it."""
        found = self._instructions.get(uid)
        if found is None:
            found = self._instructions[uid] = self.program.instruction(uid)
        return found

    def post(self, uid: int, ready: float) -> None:
        """Post a launched instruction after the delay that its stream needs to wake."""
        if self._launches:
            ready = max(ready, self._launches[uid])
        delay = self._delays[uid]
        if delay > 0:
            demand, weight = self._costs.delay_demand(self.instruction(uid))
            if demand:
                self._share(ready, delay, demand, weight, (uid,), arrives=True)
                return
        self.arrive(uid, ready + delay)

    def begin(self, participants: tuple[int, ...], time: float) -> None:
        """Start `participants` at `time`, which may be ahead of the clock."""
        seconds = self._seconds[participants[0]]
        if seconds > 0:
            demand, weight = self.demand(participants)
            if demand:
                self._share(time, seconds, demand, weight, participants)
                return
        self.finish(participants, time + seconds)

    def _share(
        self,
        time: float,
        seconds: float,
        demand: Demand,
        weight: float,
        uids: tuple[int, ...],
        arrives: bool = False,
    ) -> None:
        """Use shared resources from `time` on; then `uids` end, or are posted, if they arrive."""
        use = Use(self.end_use, time, uids, arrives)
        self._uses[id(use)] = use

        def start(_: object = None) -> None:
            use.activity = self._shared.start(seconds, demand, use.done, weight)

        ahead = time - self._environment.now
        if ahead <= 0:
            start()
        else:
            self._environment.timeout(ahead).callbacks.append(start)

    def end_use(self, use: Use, now: float) -> None:
        """Go on behind what has used shared resources."""
        del self._uses[id(use)]
        time = max(now, use.time)  # the clock rounds
        if use.arrives:
            self.arrive(use.uids[0], time)
        else:
            self.finish(use.uids, time)
        self.advance()

    def going(self) -> Going:
        """Return what uses shared resources, or will."""
        now = self._environment.now
        return {
            use.uids: ((use.arrives, False), (use.time,), ())
            if use.activity is None
            else ((use.arrives, True), (now,), (use.activity.left_at(now), use.activity.rate))
            for use in self._uses.values()
        }

    def carry(self, image: Callable[[int], int]) -> None:
        """Let what uses shared resources be that of other instructions, which are like them."""
        for use in self._uses.values():
            use.uids = tuple(map(image, use.uids))


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

    def alone(self) -> Times:
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
                return _timeline(program, times)
        return Engine(program, costs, record).run()


def _timeline(program: Program, times: Iterable[Floats], **decided: Any) -> Timeline:
    posted, start, end = times
    memory = memory_samples(program, posted, end, decided.get("idle", ()))
    return Timeline.of_program(program, posted, start, end, memory=memory, **decided)
