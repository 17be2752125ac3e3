"""Where lists repeat themselves: likeness of instructions further on, by its definition."""

from __future__ import annotations

import numpy as np
import pytest

from simulator import lower, parse
from simulator.program.program import Program
from simulator.program.repetition import Repetition
from simulator.program.walk import Walk


def repetition_of(program: Program) -> Repetition:
    return Repetition(program, [stream.queue for stream in Walk(program)._streams])


def plan(**parallel: object) -> Program:
    keys = {"pipeline": 2, "microbatches": 12} | parallel
    workload = {"model": "gpt", "layers": 4, "global_batch": 24}
    return lower(parse({"workload": workload, "parallel": keys, "cluster": {"preset": "dgx-h100"}}))


@pytest.mark.parametrize("keys", [{}, {"tensor": 2, "data": 2, "zero": 1}, {"schedule": "zb-h1"}])
def test_likeness_is_that_of_the_definition(keys: dict) -> None:
    program = plan(**keys)
    repetition = repetition_of(program)
    streams = repetition.length.size
    shift = np.where(repetition.length > 12, repetition.length // 12, 1)
    uids = np.arange(len(program))
    further = repetition.further(uids, shift)
    limits = repetition.limits(shift, np.zeros(streams, dtype=np.int64))
    instructions = list(program)
    meeting = {uid: number for number, m in enumerate(program.participants) for uid in m}
    for number in range(streams):
        queue = repetition.order[repetition.first[number] :][: repetition.length[number]]
        for uid in queue[: limits[number]].tolist():
            one, other = instructions[uid], instructions[further[uid]]
            assert one.task is other.task
            waits = sorted(further[wait.uid] for wait in one.after)
            assert waits == sorted(wait.uid for wait in other.after)
            if uid in meeting:
                met = [further[member] for member in program.participants[meeting[uid]]]
                assert met == list(program.participants[meeting[int(further[uid])]])


def test_further_on_is_nothing_at_the_end_of_a_stream() -> None:
    program = plan()
    repetition = repetition_of(program)
    shift = np.ones(repetition.length.size, dtype=np.int64)
    uids = np.arange(len(program))
    last = repetition.index == repetition.length[repetition.stream] - 1
    further = repetition.further(uids, shift)
    assert ((further == -1) == last).all()
    assert (repetition.further(further[~last], -shift) == uids[~last]).all()


def test_steady_microbatches_are_alike() -> None:
    program = plan(pipeline=1, microbatches=12)
    repetition = repetition_of(program)
    shift = np.array([2] * repetition.length.size)
    limits = repetition.limits(shift, np.full(repetition.length.size, 2, dtype=np.int64))
    assert limits.max() >= 2 * 9
