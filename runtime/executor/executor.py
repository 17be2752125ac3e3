"""The executor that waits: walks the instruction list of one rank, for real.

It knows neither operations nor strategies: `runtime.executor.operations.table` has one function
per operation. Compute runs in the calling thread in list order, and has ended before the walk goes
on; communication is handed to its stream when the walk reaches it. Semantics are those of
`simulator.program`. `runtime.executor.ahead_executor` does not wait.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from runtime.executor.context import Batches, RankContext
from runtime.executor.errors import ExecutionError
from runtime.executor.list_executor import CLOSE_S, FAILURE_POLL_S, ListExecutor
from runtime.executor.observers import Observer
from runtime.executor.operations.table import OPERATIONS
from runtime.executor.streams import Stopwatch, Stream, Ticket, Work
from simulator.program.instruction import Instruction
from simulator.program.meetings import CARRIED
from simulator.program.stream import COMPUTE_STREAM
from simulator.program.stream import Stream as StreamName


class Executor(ListExecutor):
    """Walks the list of one rank and waits for the end of every instruction.

    Args:
        context, observers: see `ListExecutor`.

    Attributes:
        met: when each instruction of the last step went on after its participants had met; for
            most that is when it was posted.
    """

    def __init__(self, context: RankContext, observers: Sequence[Observer] = ()):
        super().__init__(context, observers)
        device, self.met = self.rank.device, [0.0] * len(self.instructions)
        used = dict.fromkeys(i.task.stream for i in self.instructions)
        takes_time = any(o.takes_time for o in self.observers)
        self.streams = {
            s: Stream(str(s), device, shared=not takes_time) for s in used if s != COMPUTE_STREAM
        }
        self.stopwatch = Stopwatch(device)
        # Where the host takes part, giving memory back takes time, too.
        self._on_host = device.type == "cpu" or takes_time

    def step(self, batches: Batches) -> None:
        """Run the list once."""
        for _ in self.walk(batches):
            pass

    def walk(self, batches: Batches) -> Iterator[Instruction]:
        """Run the list once as `step` does, with a pause after every compute instruction."""
        self.context.begin(batches)
        self.context.begin_step()
        step = 0
        self.stopwatch.restart()
        for observer in self.observers:
            observer.begin_step()
        tickets: dict[int, Ticket] = {}
        for instruction in self.instructions:
            self.rank.progress.enter(instruction.index)
            if instruction.task.stream == COMPUTE_STREAM:
                self._await(instruction, tickets)
                if instruction.step > step:
                    step = instruction.step
                    self.context.end_step()
                    self.context.begin_step()
                self._attend()
                for _ in self._execute(instruction):
                    pass
                yield instruction
            else:
                tickets[instruction.uid] = self._queue(instruction, tickets)
        for instruction in self.instructions:
            if instruction.uid in tickets:
                self._wait_for(instruction, tickets[instruction.uid])
        self.context.end_step()

    def prolong(self, instruction: Instruction) -> float:
        """Count what the caller of `walk` did in the pause as a part of `instruction`.

        Returns:
            The seconds since the instruction had ended.
        """
        before, now = self.end[instruction.index], time.perf_counter()
        self.end[instruction.index] = now
        return now - before

    def close(self) -> None:
        """End the threads of all streams; a stream that hangs is left to the process's end."""
        deadline = time.monotonic() + CLOSE_S  # of all streams together
        for stream in self.streams.values():
            stream.close(max(deadline - time.monotonic(), 0.0))

    def _queue(self, instruction: Instruction, tickets: dict[int, Ticket]) -> Ticket:
        """Hand `instruction` to its stream; what it waits for there is other streams."""
        others = [tickets[other.uid] for other in instruction.after if other.uid in tickets]
        ready = instruction.task.op in CARRIED and all(other.ended for other in others)
        work = self._execute(instruction, others)
        return self.streams[instruction.task.stream].submit(work, ready)

    def _await(self, instruction: Instruction, tickets: dict[int, Ticket]) -> None:
        for other in instruction.after:
            if other.uid in tickets:
                self._wait_for(other, tickets[other.uid])
                self.rank.progress.enter(instruction.index)

    def _wait_for(self, instruction: Instruction, ticket: Ticket) -> None:
        self.rank.progress.wait(instruction.index)
        if not ticket.ended:
            self._attend(but=instruction.task.stream)
        deadline = time.monotonic() + self.timeout_s
        while not ticket.wait(min(self.timeout_s, FAILURE_POLL_S)):
            if self.failure:
                raise self.failure
            if time.monotonic() > deadline:
                raise self.failed(instruction, self.late())

    def _attend(self, but: StreamName | None = None) -> None:
        """Have threads note the ends of what is under way, while this one is busy."""
        for name, stream in self.streams.items():
            if name != but:
                stream.attend()

    def _execute(self, instruction: Instruction, others: Sequence[Ticket] = ()) -> Work:
        """Run `instruction` after `others`; fills its `posted` and `end`.

        Raises:
            ExecutionError: it, or one of the others, has failed.
        """
        index = instruction.index
        try:
            for other in others:
                if not other.wait(self.timeout_s):
                    raise self.late()
            begin = self.posted[index] = time.perf_counter()
            for observer in self.observers:
                observer.before(instruction)
            self.met[index] = begin
            if self.context.groups.meet(instruction):
                self.met[index] = time.perf_counter()
            wait = OPERATIONS[instruction.task.op](self.context, instruction)
            yield
            if wait is not None:
                wait()
            finished = self.stopwatch.finish()
            for observer in self.observers:
                observer.after(instruction, begin)
            if instruction.task.frees:
                self.context.release(instruction).drop()
        except Exception as error:
            if isinstance(error, ExecutionError):
                raise
            failed = self.failed(instruction, error)
            self.failure = self.failure or failed
            raise failed from error
        self.end[index] = time.perf_counter() if self._on_host else max(finished, begin)
