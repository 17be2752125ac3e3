"""Times found along the longest path are those of the engine, which goes step by step."""

from __future__ import annotations

import numpy as np
from hypothesis import given, reject
from hypothesis import strategies as st

from simulator import ExperimentError, lower, parse
from simulator.cluster.resolve import resolve
from simulator.engine.costs import costs_of
from simulator.engine.engine import Engine, simulate
from simulator.engine.unshared import path_of, unshared_times
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.tensors import TensorName
from simulator.strategies.schedules.registry import SCHEDULES
from written_out import written_out


@given(
    schedule=st.sampled_from(sorted(SCHEDULES)),
    pipeline=st.sampled_from([1, 2, 3, 4]),
    stages=st.sampled_from([1, 2]),
    microbatches=st.sampled_from([1, 4, 8]),
    seconds=st.tuples(*[st.floats(0.0, 3.0)] * 4),
)
def test_as_the_engine(schedule, pipeline, stages, microbatches, seconds) -> None:
    names = ("forward", "backward_input", "backward_weight", "p2p")
    workload = {"model": "unit", **dict(zip(names, seconds, strict=True))}
    parallel = {
        "pipeline": pipeline, "schedule": schedule, "virtual_stages": stages,
        "microbatches": microbatches,
    }  # fmt: skip
    try:
        experiment = parse({"workload": workload, "parallel": parallel})
        program = lower(experiment)
    except ExperimentError:
        reject()
    assert path_of(program) is not None
    costs = costs_of(program, experiment, resolve(experiment))
    found = simulate(program, costs)
    expected = Engine(written_out(program), costs).run()
    for column in ("posted", "start", "end"):
        assert np.array_equal(getattr(found, column), getattr(expected, column))


FORWARD = Task(Op.FORWARD, 0)
SEND = Task(Op.SEND, 0, stream=Stream.send(1), peer=1, tensor=TensorName.other("x"))
RECEIVE = Task(Op.RECV, 1, stream=Stream.recv(0), peer=0, tensor=TensorName.other("x"))


def test_messages_that_nobody_waits_for() -> None:
    """The second message waits for the first, which ends after its side is there."""
    forward = Instruction(FORWARD, 0)
    sends = [Instruction(SEND, number, [forward]) for number in range(2)]
    program = Program([[forward, *sends], [Instruction(RECEIVE, number) for number in range(2)]])
    times = unshared_times(program, [1.0, 0.5, 0.5, 0.5, 0.5])
    assert times is not None
    assert [column.tolist() for column in times] == [
        [0.0, 1.0, 1.5, 0.0, 1.5],
        [0.0, 1.0, 1.5, 1.0, 1.5],
        [1.0, 1.5, 2.0, 1.5, 2.0],
    ]


def test_an_idle_rank() -> None:
    forward = Instruction(FORWARD, 0)
    times = unshared_times(Program([[], [forward], []]), [2.0])
    assert times is not None
    assert times[2].tolist() == [2.0]


def test_a_deadlock_is_for_the_engine() -> None:
    first = Instruction(
        Task(Op.RECV, 0, stream=Stream.recv(1), peer=1, tensor=TensorName.other("x"))
    )
    other = Instruction(RECEIVE)
    sends = Task(Op.SEND, 1, stream=Stream.send(0), peer=0, tensor=TensorName.other("x"))
    lists = [
        [first, forward := Instruction(FORWARD, after=[first]), Instruction(SEND, after=[forward])],
        [other, behind := Instruction(FORWARD, after=[other]), Instruction(sends, after=[behind])],
    ]
    assert unshared_times(Program(lists), [1.0] * 6) is None


def test_groups_of_three_are_for_the_engine() -> None:
    program = lower(parse({"workload": {"model": "mlp"}, "parallel": {"data": 3, "pipeline": 2}}))
    assert path_of(program) is None
