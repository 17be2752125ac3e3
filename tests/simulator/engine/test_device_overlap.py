"""Passes and transfers that may run at the same time, by what waits for what."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.engine.device_overlap import overlapping
from simulator.program.instruction import Instruction
from simulator.program.operations import COLLECTIVES, COMMUNICATION, Op
from simulator.program.program import Program
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.tensors import TensorName


def compute(after: Sequence[Instruction] = ()) -> Instruction:
    return Instruction(Task(Op.FORWARD, 0), 0, after)


def reduce(after: Sequence[Instruction] = (), group: tuple[int, ...] = (0, 1)) -> Instruction:
    return Instruction(Task(Op.ALL_REDUCE, 0, stream=Stream.along("data"), group=group), -1, after)


def found(instructions: list[Instruction], transfers=COLLECTIVES) -> list[int]:
    """The positions in the list of those that may overlap."""
    return sorted(overlapping(Program([instructions]).columns[0], transfers).tolist())


def test_a_transfer_overlaps_passes_between_what_it_waits_for_and_what_waits_for_it() -> None:
    first = compute()
    transfer = reduce([first])
    assert found([first, transfer, compute(), compute(), compute([transfer]), compute()]) == [
        1,
        2,
        3,
    ]


def test_a_transfer_that_the_next_pass_waits_for_overlaps_nothing() -> None:
    first = compute()
    transfer = reduce([first])
    assert found([first, transfer, compute([transfer])]) == []


def test_a_transfer_nobody_waits_for_overlaps_to_the_end() -> None:
    first = compute()
    assert found([first, reduce([first]), compute(), compute()]) == [1, 2, 3]


def test_a_transfer_after_all_passes_overlaps_nothing() -> None:
    first = compute()
    assert found([first, reduce([first])]) == []


def test_a_group_of_one_moves_nothing() -> None:
    first = compute()
    assert found([first, reduce([first], (0,)), compute()]) == []


def test_messages_overlap_only_if_they_use_the_device() -> None:
    first = compute()
    sent = Instruction(
        Task(Op.SEND, 0, stream=Stream.send(1), peer=1, tensor=TensorName.other("x")), 0, [first]
    )
    assert found([first, sent, compute()]) == []
    assert found([first, sent, compute()], COMMUNICATION) == [1, 2]
