"""Bytes that ranks send: parts of a meeting add up to what is sent in it."""

from __future__ import annotations

import pytest

from simulator.analysis.traffic import bytes_sent
from simulator.program.operations import COLLECTIVES, Op
from simulator.program.task import Task

COPIES = {  # of the bytes of a task, sent by all of four ranks together
    Op.ALL_REDUCE: 6,
    Op.ALL_GATHER: 3,
    Op.REDUCE_SCATTER: 3,
    Op.REDUCE: 3,
    Op.BROADCAST: 3,
    Op.ALL_TO_ALL: 3,
    Op.SHIFT: 4,
    Op.SHIFT_BACK: 4,
}


@pytest.mark.parametrize("op", sorted(COPIES))
def test_collectives_send_what_a_ring_does(op: Op) -> None:
    task = Task(op=op, stage=0, group=(0, 1, 2, 3), nbytes=100)
    assert 4 * bytes_sent(task) == COPIES[op] * 100


def test_all_collectives_are_counted() -> None:
    assert COPIES.keys() == set(COLLECTIVES)


def test_a_message_is_counted_on_one_side() -> None:
    send = Task(op=Op.SEND, stage=0, peer=1, nbytes=100)
    receive = Task(op=Op.RECV, stage=0, peer=0, nbytes=100)
    assert (bytes_sent(send), bytes_sent(receive)) == (100, 0)
    push = Task(op=Op.SEND, stage=0, peer=1, nbytes=100, queue="server")
    pull = Task(op=Op.RECV, stage=0, peer=1, nbytes=100, queue="server")
    accept = Task(op=Op.ACCEPT, stage=0, group=(0,), nbytes=100, queue="server")
    assert [bytes_sent(task) for task in (push, pull, accept)] == [100, 100, 0]
    assert bytes_sent(Task(op=Op.FORWARD, stage=0, nbytes=100)) == 0
