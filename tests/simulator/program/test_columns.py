"""Columns that are made from calls are those of the instructions that are written out from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulator import load, lower
from simulator.program.columns import Columns, columns_of_list
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.stream import COMPUTE_STREAM, Stream
from simulator.program.task import Task


def readable(columns: Columns) -> list[Any]:
    """Return task, step, microbatch and waits of every instruction."""
    return [
        (
            columns.tasks[columns.task[number]],
            (int(columns.step[number]), int(columns.microbatch[number])),
            columns.waits[columns.begin[number] : columns.begin[number + 1]].tolist(),
        )
        for number in range(len(columns))
    ]


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["parallel.schedule=zb-h1", "parallel.data=2"],
        ["parallel.schedule=interleaved-1f1b", "parallel.virtual_stages=2", "parallel.tensor=2"],
        ["parallel.schedule=pipedream", "parallel.tensor=2", "parallel.sequence_parallel=true"],
        ["parallel.data=4", "parallel.zero=3", "parallel.prefetch=2", "workload.clip_norm=1"],
        ["parallel.data=4", "parallel.zero=2", "parallel.zero_group=2", "parallel.bucket_mb=0.1"],
        ["parallel.recompute=full", "parallel.context=2"],
        ["workload.model=unit"],
        ["run.horizon=3", "parallel.data=4", "parallel.zero=1", "parallel.bucket_mb=0.1"],
        ["run.horizon=3", "parallel.schedule=pipedream", "parallel.microbatches=2"],
    ],
)
def test_calls_and_what_is_written_out_have_equal_columns(settings: list[str]) -> None:
    program = lower(load(None, settings))
    by_hand = Program(
        program.ranks, program.resident, program.buckets, program.num_stages, program.list_of
    )
    for found, expected in zip(program.columns, by_hand.columns, strict=True):
        assert readable(found) == readable(expected)
        assert len(found) == len(expected)
    assert len(program) == len(by_hand) == sum(map(len, program.ranks))
    assert program.hash() == by_hand.hash()


def test_waits_are_in_order() -> None:
    task = Task(Op.FORWARD, 0)
    first, second = Instruction(task, 0), Instruction(task, 1)
    last = Instruction(Task(Op.BACKWARD, 0), 0, [second, first])
    columns = columns_of_list(Program([[first, second, last]]).ranks[0])
    assert columns.task.tolist() == [0, 0, 1]
    assert columns.begin.tolist() == [0, 0, 0, 2]
    assert columns.waits.tolist() == [0, 1]


def test_positions_are_by_key_in_the_order_of_first_tasks() -> None:
    forward, step = Task(Op.FORWARD, 0), Task(Op.OPTIMIZER_STEP, 0)
    sent = Task(Op.SEND, 0, stream=Stream.send(1), peer=1)
    listed = [Instruction(task) for task in (sent, forward, sent, step, forward)]
    columns = Program([listed]).columns[0]
    by_stream = columns.positions(lambda task: task.stream)
    assert {name: found.tolist() for name, found in by_stream.items()} == {
        Stream.send(1): [0, 2],
        COMPUTE_STREAM: [1, 3, 4],
    }
    assert list(by_stream) == [Stream.send(1), COMPUTE_STREAM]
    left_out = columns.positions(lambda task: None if task is sent else task.op)
    assert {op: found.tolist() for op, found in left_out.items()} == {
        Op.FORWARD: [1, 4],
        Op.OPTIMIZER_STEP: [3],
    }


def test_an_empty_list_has_empty_columns() -> None:
    columns = columns_of_list([])
    assert len(columns) == 0
    assert np.array_equal(columns.begin, [0])
