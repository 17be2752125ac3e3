"""The executor whose host runs ahead: it launches the list of one rank and waits for nothing.

One thread walks the list. Every stream of the program is a stream of the device, which waits for
the events of what an instruction waits for; the begin and the end of an instruction are events
around its work. Spans are the times of these events. The host knows what happened a little later:
memory that an instruction frees is given back when its end has passed, and the walk stays within a
few passes of the device.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from functools import partial

from runtime.executor.context import Batches, RankContext
from runtime.executor.device_streams import DeviceStreams
from runtime.executor.freed_queue import FreedQueue
from runtime.executor.list_executor import FAILURE_POLL_S, ListExecutor
from runtime.executor.observers import Observer
from runtime.executor.operations.table import OPERATIONS
from simulator.program.instruction import Instruction
from simulator.program.launch_order import memory_waits
from simulator.program.stream import COMPUTE_STREAM

AHEAD_MICROBATCHES = 2
"""The passes of so many microbatches may be launched and not have ended."""


class AheadExecutor(ListExecutor):
    """Walks the list of one rank ahead of its device.

    Args:
        context, observers: see `ListExecutor`; observers are told when something is launched.
        device: the streams of the rank.
    """

    def __init__(
        self, context: RankContext, observers: Sequence[Observer], device: DeviceStreams
    ) -> None:
        super().__init__(context, observers)
        self._device = device
        self._compute = device.stream(str(COMPUTE_STREAM))
        used = dict.fromkeys(i.task.stream for i in self.instructions)
        self._streams = {stream: device.stream(str(stream)) for stream in used}
        self.begin_events = [device.event() for _ in self.instructions]
        self.end_events = [device.event() for _ in self.instructions]
        self._step_event = device.event()
        self._freed = FreedQueue()
        self._memory_waits = memory_waits(self.instructions)
        self._most_ahead = most_ahead(self.instructions)
        self._launched = self._passed = 0

    def step(self, batches: Batches) -> None:
        """Launch the list once, and wait for its end."""
        self.context.begin(batches)
        self._device.restart()
        for observer in self.observers:
            observer.begin_step()
        self._compute.launch(self.context.begin_step)
        self._compute.record(self._step_event)
        for stream in self._streams.values():
            stream.wait(self._step_event)  # and so for all that came before
        self._launched = self._passed = 0
        self._launch_all()
        for index in range(len(self.instructions)):
            self._wait_for(index)
        self._compute.launch(self.context.end_step)
        self._compute.record(self._step_event)
        if not self._step_event.wait(self.timeout_s):
            raise self.late()
        self._freed.drop_passed()
        self.posted = [event.seconds() for event in self.begin_events]
        self.end = [event.seconds() for event in self.end_events]

    def close(self) -> None:
        """Give up what is still queued."""
        self._device.close()

    def _launch_all(self) -> None:
        under_way: deque[int] = deque()  # passes
        step = 0
        for instruction in self.instructions:
            if instruction.task.stream == COMPUTE_STREAM:
                if len(under_way) == self._most_ahead:
                    self._wait_for(under_way.popleft())
                under_way.append(instruction.index)
                if instruction.step > step:
                    step = instruction.step
                    self._compute.launch(self.context.end_step)
                    self._compute.launch(self.context.begin_step)
            for index in self._memory_waits.get(instruction.index, ()):
                self._wait_for(index)
                self._freed.drop_passed()
            self._launch(instruction)
            self._freed.drop_passed()

    def _launch(self, instruction: Instruction) -> None:
        index, stream = instruction.index, self._streams[instruction.task.stream]
        for other in instruction.after:
            stream.wait(self.end_events[other.index])
        stream.record(self.begin_events[index])
        stream.launch(partial(self._execute, instruction))
        stream.record(self.end_events[index])
        self._launched = index + 1

    def _execute(self, instruction: Instruction) -> None:
        """Launch the work of `instruction` on the stream that is current in this thread.

        Raises:
            ExecutionError: it has failed.
        """
        if instruction.task.stream == COMPUTE_STREAM:
            self.rank.progress.enter(instruction.index)
        try:
            begin = time.perf_counter()
            for observer in self.observers:
                observer.before(instruction)
            wait = OPERATIONS[instruction.task.op](self.context, instruction)
            if wait is not None:
                wait()
            for observer in self.observers:
                observer.after(instruction, begin)
            if instruction.task.frees:
                freed = self.context.release(instruction)
                self._freed.add(self.end_events[instruction.index], freed)
        except Exception as error:
            failed = self.failed(instruction, error)
            self.failure = self.failure or failed
            raise failed from error

    def _wait_for(self, index: int) -> None:
        """Wait until an instruction has ended.

        Raises:
            ExecutionError: something has failed, or nothing has ended for too long.
        """
        event, noted, deadline = self.end_events[index], -1, 0.0
        while not event.wait(FAILURE_POLL_S):
            if self.failure is not None:
                raise self.failure
            under_way, waits = self._under_way()
            if under_way != noted:
                noted, deadline = under_way, time.monotonic() + self.timeout_s
                note = self.rank.progress.wait if waits else self.rank.progress.enter
                note(under_way)
            elif waits and time.monotonic() > deadline:
                raise self.failed(self.instructions[under_way], self.late())

    def _under_way(self) -> tuple[int, bool]:
        """Return what has begun and not ended, and whether others have to come for it.

        That is a pass, if one is under way, else the first event that has not passed.
        """
        while self._passed < self._launched and self.end_events[self._passed].query():
            self._passed += 1
        still = range(self._passed, max(self._launched, self._passed + 1))
        open_ones = [index for index in still if not self.end_events[index].query()]
        begun = [index for index in open_ones if self.begin_events[index].query()]
        for index in begun:
            if self.instructions[index].task.stream == COMPUTE_STREAM:
                return index, False
        return (begun or open_ones or [min(self._passed, len(self.instructions) - 1)])[0], True


def most_ahead(instructions: Sequence[Instruction]) -> int:
    """Return how many passes may be launched and not have ended: those of a few microbatches."""
    passes = [i for i in instructions if i.task.stream == COMPUTE_STREAM and i.microbatch >= 0]
    microbatches = len({i.batch for i in passes})
    return AHEAD_MICROBATCHES * max(-(-len(passes) // max(microbatches, 1)), 1)
