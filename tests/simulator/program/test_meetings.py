"""Messages and collectives of different ranks that meet, in whole and in folded programs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.tensors import TensorName

FORWARD = Task(Op.FORWARD, stage=0)


def test_the_kth_send_meets_the_kth_receive() -> None:
    send = Task(
        Op.SEND, stage=0, stream=Stream.send(1), peer=1, tensor=TensorName.other("x"), nbytes=4
    )
    receive = Task(
        Op.RECV, stage=1, stream=Stream.recv(0), peer=0, tensor=TensorName.other("x"), nbytes=4
    )
    sends, receives = ([Instruction(task, m) for m in range(3)] for task in (send, receive))
    assert Program([sends, receives]).meetings == list(zip(sends, receives, strict=True))


def test_a_collective_meets_in_the_order_of_its_group() -> None:
    task = Task(
        Op.ALL_REDUCE,
        stage=0,
        stream=Stream.along("data"),
        group=(2, 0),
        tensor=TensorName.other("g"),
        nbytes=4,
    )
    first, idle, second = [Instruction(task)], [Instruction(FORWARD)], [Instruction(task)]
    assert Program([first, idle, second]).meetings == [(second[0], first[0])]


@pytest.mark.parametrize(
    "change",
    [{"op": Op.ALL_GATHER}, {"tensor": "h"}, {"nbytes": 8}, {"reduction": "max"}],
    ids=str,
)
def test_participants_that_would_exchange_different_things_are_refused(change) -> None:
    task = Task(
        Op.ALL_REDUCE,
        stage=0,
        stream=Stream.along("data"),
        group=(0, 1),
        tensor=TensorName.other("g"),
        nbytes=4,
    )
    assert len(Program([[Instruction(task)], [Instruction(replace(task))]]).meetings) == 1
    other = replace(task, **change)
    with pytest.raises(ValueError, match=r"^rank 0: 0ALL_REDUCE .* would meet rank 1: .* differ$"):
        _ = Program([[Instruction(task)], [Instruction(other)]]).meetings


def two_of_four(*groups: tuple[int, ...]) -> Program:
    """Ranks 0 and 2 of four, that send a message and then reduce over `groups`."""
    messages = (
        Task(Op.SEND, 0, stream=Stream.send(2), peer=2, tensor=TensorName.other("x")),
        Task(Op.RECV, 1, stream=Stream.recv(0), peer=0, tensor=TensorName.other("x")),
    )
    lists = [[Instruction(message)] for message in messages]
    for number, group in enumerate(groups):
        task = Task(
            Op.ALL_REDUCE,
            number,
            stream=Stream.along("data"),
            group=group,
            tensor=TensorName.other("g"),
            nbytes=8,
        )
        lists[number % 2].append(Instruction(task))
    return Program(lists, list_of=[0, 0, 1, 1])


def test_global_ranks_and_who_meets() -> None:
    """A group of tensor peers has one member here, a group of all has two."""
    program = two_of_four((0, 1), (2, 3), (0, 1, 2, 3), (0, 1, 2, 3))
    assert [instruction.rank for instruction in program] == [0, 0, 0, 2, 2, 2]
    meetings = [[member.rank for member in meeting] for meeting in program.meetings]
    assert sorted(meetings) == [[0], [0, 2], [0, 2], [2]]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (((0, 1, 2, 3),), "rank 0: 0ALL_REDUCE has no partner on rank 2"),
        (((0, 4),), "rank 0: 0ALL_REDUCE has no partner on rank 4"),
        (((1, 3),), "rank 0: 0ALL_REDUCE is not of its group"),
    ],
)
def test_who_is_in_the_program_must_come(groups, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _ = two_of_four(*groups).meetings


def test_a_message_to_a_rank_that_is_left_out_is_refused() -> None:
    task = Task(Op.SEND, 0, stream=Stream.send(1), peer=1, tensor=TensorName.other("x"))
    program = Program([[Instruction(task)]], list_of=[0, 0])
    with pytest.raises(ValueError, match="rank 0: 0SEND has no partner on rank 1"):
        _ = program.meetings
