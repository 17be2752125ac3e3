"""What is told from pieces is what a walk over all instructions finds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator import load, lower
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.pieces import surely_ends
from simulator.program.program import Program
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.tensors import TensorName
from simulator.program.walk import Walk

PLANS = [
    ("schedule=1f1b", "microbatches=4"),
    ("schedule=zb-h1", "microbatches=3", "data=2"),
    ("schedule=interleaved-1f1b", "virtual_stages=2", "tensor=2", "sequence_parallel=true"),
    ("schedule=gpipe", "recompute=full", "context=2", "microbatches=2"),
    ("schedule=pipedream", "microbatches=4", "data=2"),
    ("pipeline=2", "data=4", "zero=3", "prefetch=2", "microbatches=2", "bucket_mb=0.1"),
    ("pipeline=1", "data=4", "zero=2", "zero_group=2", "microbatches=3", "bucket_mb=0.1"),
]


@pytest.mark.parametrize("plan", PLANS, ids=" ".join)
def test_plans_of_all_kinds_are_vouched_for(plan: Sequence[str]) -> None:
    assert surely_ends(lower(load(None, [f"parallel.{setting}" for setting in plan])))


FORWARD = Task(Op.FORWARD, 0)


def send(peer: int) -> Task:
    return Task(Op.SEND, 0, stream=Stream.send(peer), peer=peer, tensor=TensorName.other("x"))


def receive(peer: int) -> Task:
    return Task(Op.RECV, 0, stream=Stream.recv(peer), peer=peer, tensor=TensorName.other("x"))


def reduce(axis: str, group: tuple[int, ...]) -> Task:
    return Task(
        Op.ALL_REDUCE, 0, stream=Stream.along(axis), group=group, tensor=TensorName.other("x")
    )


MEETINGS = {
    "message": {0: send(1), 1: receive(0)},
    "message back": {1: send(2), 2: receive(1), 0: FORWARD},
    "far": {2: send(0), 0: receive(2)},
    "of two": {0: reduce("data", (0, 1)), 1: reduce("data", (0, 1))},
    "of all": {rank: reduce("data", (0, 1, 2)) for rank in range(3)},
    "other stream": {rank: reduce("model", (0, 1, 2)) for rank in range(3)},
    "of one": {rank: reduce("data", (rank,)) for rank in range(3)},
    "compute": dict.fromkeys(range(3), FORWARD),
}


@settings(max_examples=500)
@given(st.data())
def test_whatever_is_vouched_for_ends(data) -> None:
    """Lists of three ranks with the same meetings, in orders and with waits of their own."""
    chosen = data.draw(st.lists(st.sampled_from(sorted(MEETINGS)), min_size=1, max_size=8))
    lists: list[list[Instruction]] = []
    for rank in range(3):
        listed: list[Instruction] = []
        tasks = [MEETINGS[name][rank] for name in chosen if rank in MEETINGS[name]]
        if data.draw(st.booleans()):
            tasks = data.draw(st.permutations(tasks))
        for task in tasks:
            before = st.lists(st.sampled_from(listed), max_size=2) if listed else st.just([])
            after = data.draw(before)
            computes = [other for other in listed if other.task is FORWARD]
            if task is not FORWARD:
                after = [*after, *computes[-1:]]
            listed.append(Instruction(task, 0, dict.fromkeys(after)))
        lists.append(listed)
    program = Program(lists)
    walk = Walk(program)
    walk.advance()
    if surely_ends(program):
        assert not walk.stuck()


def test_a_wait_for_each_other_is_not_vouched_for() -> None:
    first = [Instruction(receive(1)), Instruction(receive(0))]
    then = [Instruction(send(1), after=first[:1]), Instruction(send(0), after=first[1:])]
    assert not surely_ends(Program([list(pair) for pair in zip(first, then, strict=True)]))
