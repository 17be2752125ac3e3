"""Paced execution: instructions are stretched to the times of a modelled cluster."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

from simulator.program import Instruction


class Pacing:
    """Makes the instructions of one rank last as long as the model says, and keeps how much
    of that was real work: what takes longer than modelled cannot be hidden.

    Args:
        seconds: what an instruction is stretched to.
    """

    def __init__(self, seconds: Callable[[Instruction], float]):
        self.seconds = seconds
        self._worked: dict[int, list[float]] = {}
        self._instructions: dict[int, Instruction] = {}

    def restart(self) -> None:
        """Forget what was measured so far, as warm-up."""
        self._worked.clear()

    def stretch(self, instruction: Instruction, begin: float | None) -> None:
        """Sleep until `instruction`, whose work began at `begin` (None: now) and is done,
        should end."""
        worked = time.perf_counter() - begin if begin is not None else 0.0
        self._instructions[instruction.index] = instruction
        self._worked.setdefault(instruction.index, []).append(worked)
        rest = self.seconds(instruction) - worked
        if rest > 0:
            time.sleep(rest)

    def report(self) -> dict[str, Any]:
        """Of this rank; see `combine`. What the model gives no time is left out."""
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
    """The reports of all ranks as one.

    Returns:
        executions: of instructions, over ranks and measured iterations; overran: those whose
        real work took longer than modelled; longest_overrun_s: the most that one took more;
        largest_ratio: the largest ratio of real work (median over the iterations) to modelled
        time, of the instruction `where`.
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
