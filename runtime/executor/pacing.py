"""Paced execution: instructions are stretched to the times of a modelled cluster.

Every instruction has an end that is due: when what it waited for was due, and the modelled
time more. So neither host time nor a sleep that lasted too long adds up; only work that is
not done by then moves what follows.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

from runtime.executor.observers import Observer
from simulator.program.accept_queue import is_local
from simulator.program.instruction import Instruction
from simulator.program.operations import COMMUNICATION, MESSAGES
from simulator.program.stream import Stream

Transfer = tuple[str, int]
"""Kind and bytes of a transfer."""


class Pacing(Observer):
    """Makes the instructions of one rank end when the model says.

    How much of that time was real work is kept.

    Args:
        seconds: the time that an instruction is stretched to.

    Attributes:
        fastest: seconds of the fastest real transfer of each size; whoever comes last to it
            sees no waiting in them.
        known: the same of all ranks, once they have told each other: how long before its end
            a transfer began.
    """

    takes_time = True

    def __init__(self, seconds: Callable[[Instruction], float]):
        self.seconds = seconds
        self.fastest: dict[Transfer, float] = {}
        self.known: dict[Transfer, float] = {}
        self._origin = 0.0
        self._due: dict[int, float] = {}
        self._free: dict[Stream, float] = {}
        self._worked: dict[int, list[float]] = {}
        self._instructions: dict[int, Instruction] = {}

    def begin_step(self) -> None:
        """Begin a step: nothing is due before this moment."""
        self._origin = time.perf_counter()
        self._due.clear()
        self._free.clear()

    def end_warm_up(self, everyones: Iterable[dict[Transfer, float]]) -> None:
        """Forget what was measured so far but the fastest transfers.

        Args:
            everyones: `fastest` of every rank.
        """
        self._worked.clear()
        for fastest in everyones:
            for transfer, seconds in fastest.items():
                self.known[transfer] = min(seconds, self.known.get(transfer, seconds))

    def after(self, instruction: Instruction, begin: float) -> None:
        """Sleep until `instruction` is due."""
        now, index, task = time.perf_counter(), instruction.index, instruction.task
        ready = max(
            [self._origin, self._free.get(task.stream, 0.0)]
            + [self._due[other.index] for other in instruction.after]
        )
        if task.op in COMMUNICATION or is_local(task):  # begins when all are there
            transfer = ("message" if task.op in MESSAGES else task.op.value, task.nbytes)
            took = now - begin
            self.fastest[transfer] = min(took, self.fastest.get(transfer, took))
            ready = max(ready, now - self.known.get(transfer, 0.0))
        self._instructions[index] = instruction
        self._worked.setdefault(index, []).append(now - ready)
        due = ready + self.seconds(instruction)
        self.is_due(instruction, max(due, now))
        if due > now:
            time.sleep(due - now)

    def is_due(self, instruction: Instruction, moment: float) -> None:
        """Let what follows begin at `moment`, in seconds of the host's clock."""
        self._due[instruction.index] = self._free[instruction.task.stream] = moment

    def report(self) -> dict[str, Any]:
        """Return the figures of this rank that `combine` reads.

        Instructions to which the model gives no time are left out.
        """
        executions = overran = 0
        longest, ratio, where = 0.0, 0.0, ""
        for index, samples in sorted(self._worked.items()):
            instruction = self._instructions[index]
            modelled = self.seconds(instruction)
            if modelled <= 0:
                continue
            executions += len(samples)
            overran += sum(worked > modelled for worked in samples)
            longest = max(longest, max(samples) - modelled)
            typical = statistics.median(samples) / modelled
            if typical > ratio:
                ratio, where = typical, f"rank {instruction.rank}, {instruction.label}"
        return {
            "executions": executions,
            "overran": overran,
            "longest_overrun_s": longest,
            "largest_ratio": ratio,
            "where": where,
        }


def combine(ranks: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the reports of all ranks as one.

    Its keys are `executions`, the number of executed instructions over ranks and measured
    iterations; `overran`, those whose real work was not done when they were due;
    `longest_overrun_s`, the most that one was late; `largest_ratio`, the largest ratio of real
    work (median over the iterations) to modelled time; and `where`, the instruction with it.
    """
    reports = list(ranks)
    worst = max(reports, key=lambda report: float(report["largest_ratio"]))
    return {
        "executions": sum(report["executions"] for report in reports),
        "overran": sum(report["overran"] for report in reports),
        "longest_overrun_s": max(report["longest_overrun_s"] for report in reports),
        "largest_ratio": worst["largest_ratio"],
        "where": worst["where"],
    }
