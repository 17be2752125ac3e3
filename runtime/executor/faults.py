"""Faults on purpose, for tests: a rank that fails, hangs, is slow or comes late."""

from __future__ import annotations

import os
import time

from runtime.executor.observers import Observer
from runtime.executor.pacing import Pacing
from simulator.program.instruction import Instruction


class Fault(Observer):
    """A fault of one rank, at one instruction or at all of one stream.

    Args:
        where: label of the instruction, or name of the stream.
        kind: see `inject` and `linger`.
        pacing: stretches the same instructions, and is told where they took longer.
    """

    takes_time = True

    def __init__(self, where: str, kind: str, pacing: Pacing | None = None):
        self._where, self._kind, self._pacing = where, kind, pacing

    def before(self, instruction: Instruction) -> None:
        """Fail, hang or come late."""
        if self._where in (instruction.label, str(instruction.task.stream)):
            inject(self._kind)

    def after(self, instruction: Instruction, begin: float) -> None:
        """Take longer."""
        if self._where in (instruction.label, str(instruction.task.stream)):
            end = linger(self._kind, begin)
            if self._pacing is not None:
                self._pacing.is_due(instruction, end)


def inject(kind: str) -> None:
    """Fail on purpose: ``exit`` (the process is gone), ``hang``, ``raise``; or come later.

    Coming later is ``delay:SECONDS``. What `linger` knows does nothing here.
    """
    word, _, amount = kind.partition(":")
    if word == "exit":
        os._exit(17)
    if word == "hang":
        time.sleep(86400)
    if word == "delay":
        time.sleep(float(amount))
    elif word != "slow":
        raise RuntimeError("injected fault")


def linger(kind: str, begin: float) -> float:
    """Take FACTOR times as long since `begin` on purpose, for ``slow:FACTOR``.

    Returns:
        The time it is over, in seconds of the host's clock.
    """
    word, _, amount = kind.partition(":")
    if word == "slow":
        time.sleep((float(amount) - 1.0) * (time.perf_counter() - begin))
    return time.perf_counter()
