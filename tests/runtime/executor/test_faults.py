"""Faults on purpose strike where they are told to, and only there."""

from __future__ import annotations

import time

import pytest

from runtime.executor.faults import Fault, inject, linger
from runtime.executor.pacing import Pacing
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.task import Task


@pytest.fixture
def clock(monkeypatch):
    """Time passes by sleeping only."""

    class Clock:
        now = 100.0

        def __init__(self):
            self.slept = []

        def sleep(self, seconds):
            self.slept.append(seconds)
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(time, "sleep", clock.sleep)
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    return clock


def test_faults_that_only_take_time(clock):
    inject("delay:0.25")
    inject("slow:3")
    assert linger("delay:0.25", 98.0) == 100.25
    assert linger("slow:3", 98.25) == 104.25
    assert clock.slept == [0.25, 4.0]


def test_a_fault_strikes_its_instruction_or_all_of_its_stream(clock):
    first, second = (Instruction(Task(Op.FORWARD, 0), microbatch) for microbatch in (0, 1))
    for where, struck in (("0F1", [second]), ("compute", [first, second]), ("0B0", [])):
        fault = Fault(where, "raise")
        for instruction in (first, second):
            if instruction in struck:
                with pytest.raises(RuntimeError, match="injected fault"):
                    fault.before(instruction)
            else:
                fault.before(instruction)


def test_what_follows_a_slow_instruction_is_due_later(clock):
    pacing = Pacing(lambda _: 1.0)
    first, second = (Instruction(Task(Op.FORWARD, 0), microbatch) for microbatch in (0, 1))
    first.index, second.index = 0, 1
    fault = Fault("0F0", "slow:3", pacing)
    pacing.begin_step()
    for instruction in (first, second):
        begin = clock.now
        pacing.after(instruction, begin)
        fault.after(instruction, begin)
    assert clock.slept == [1.0, 2.0, 1.0]
