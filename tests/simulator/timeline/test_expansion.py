"""The expanded timeline of a folded program is that of the whole program."""

from __future__ import annotations

import numpy as np
import pytest

from simulator import load, lower, predict
from simulator.cluster.resolve import resolve
from simulator.engine.replica_folding import folding_of
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.tensors import TensorName
from simulator.timeline.expansion import expanded
from simulator.timeline.timeline import Kind, MemorySamples, Timeline
from written_out import written_out


@pytest.mark.parametrize(
    "parallel",
    [
        ("data=2", "pipeline=2", "tensor=2", "microbatches=4"),
        ("data=8", "pipeline=1", "zero=3", "microbatches=2"),
        ("data=2", "pipeline=4", "schedule=zb-h1", "microbatches=4"),
        ("data=2", "pipeline=2", "tensor=2",
         'rank_order=["pipeline", "tensor", "data", "context", "expert"]'),
    ],
)  # fmt: skip
def test_it_is_that_of_the_whole_program(parallel: tuple[str, ...]) -> None:
    model = ["workload.layers=4", "workload.hidden=64", "cluster.preset=dgx-h100"]
    experiment = load(None, [*model, *(f"parallel.{setting}" for setting in parallel)])
    folding = folding_of(experiment, resolve(experiment))
    assert folding is not None
    # Without calls, so step by step: leaps round sums in another order.
    whole, folded = (
        predict(experiment, program=written_out(lower(experiment, list_of)))
        for list_of in ((), folding.list_of)
    )
    found, expected = folded.timeline, whole.timeline
    assert folded.recorded.num_ranks < found.num_ranks == expected.num_ranks == 4 * 2
    assert found.members == expected.members == [*range(8)]
    assert found.counts == expected.counts == [1] * 8
    assert found.labels() == expected.labels()
    for column in ("rank", "microbatch", "posted", "start", "end"):
        assert getattr(found, column).tobytes() == getattr(expected, column).tobytes(), column
    assert [found.kinds[kind] for kind in found.kind] == [
        expected.kinds[kind] for kind in expected.kind
    ]
    for mine, theirs in zip(found.memory, expected.memory, strict=True):
        assert mine.times.tobytes() == theirs.times.tobytes()
        assert mine.nbytes.tobytes() == theirs.nbytes.tobytes()
        assert mine.peak_parts == theirs.peak_parts
    assert found.meta == expected.meta
    assert [rank.to_json() for rank in folded.ranks] == [rank.to_json() for rank in whole.ranks]


def test_partners_are_at_the_same_distance() -> None:
    lists = [
        [
            Instruction(
                Task(Op.SEND, 0, stream=Stream.send(2), peer=2, tensor=TensorName.other("x"))
            )
        ],
        [
            Instruction(
                Task(Op.RECV, 1, stream=Stream.recv(0), peer=0, tensor=TensorName.other("x"))
            ),
            Instruction(Task(Op.ALL_REDUCE, 1, stream=Stream.along("data"), group=(2, 3))),
        ],
    ]
    held = [MemorySamples(np.zeros(1), np.array([n])) for n in (1, 2)]
    program = Program(lists, list_of=[0, 0, 1, 1])
    assert program.counts == [2, 2]
    found = expanded(
        Timeline.of_program(program, *(np.arange(3.0) + n for n in range(3)), memory=held),
        program.list_of,
    )
    kinds = [found.kinds[kind] for kind in found.kind]
    assert [(str(kind.stream), kind.peer) for kind in kinds] == [
        *(("send:2", 2), ("send:3", 3)),
        *(("recv:0", 0), ("data", -1), ("recv:1", 1), ("data", -1)),
    ]
    assert found.rank.tolist() == [0, 1, 2, 2, 3, 3]
    assert found.posted.tolist() == [0, 0, 1, 2, 1, 2]
    assert [samples.peak for samples in found.memory] == [1, 1, 2, 2]


def test_nothing_is_left_to_expand() -> None:
    program = Program([[Instruction(Task(Op.FORWARD, 0))]])
    timeline = Timeline.of_program(program, *[np.zeros(1)] * 3)
    assert expanded(timeline, program.list_of) is timeline


def test_the_rank_itself_keeps_its_kind() -> None:
    kind = Kind(Op("SEND"), "SEND_F", 0, -1, Stream.send(16), 16, 4)
    assert kind.moved(0) is kind
    assert kind.moved(-9) == kind._replace(stream=Stream.send(7), peer=7)
