"""Programs whose instructions wait for each other for ever are refused."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from simulator.engine.engine import simulate
from simulator.engine.questions import Costs
from simulator.program.deadlock import check_deadlock
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.stream import COMPUTE_STREAM, Stream
from simulator.program.task import Task
from simulator.program.tensors import TensorName


def compute(
    microbatch: int = 0, after: Sequence[Instruction] = (), stream: Stream = COMPUTE_STREAM
) -> Instruction:
    return Instruction(Task(Op.FORWARD, stage=0, stream=stream), microbatch, after)


def send(peer: int, after: Sequence[Instruction] = ()) -> Instruction:
    return Instruction(
        Task(Op.SEND, 0, stream=Stream.send(peer), peer=peer, tensor=TensorName.other("x")),
        0,
        after,
    )


def receive(peer: int) -> Instruction:
    return Instruction(
        Task(Op.RECV, 0, stream=Stream.recv(peer), peer=peer, tensor=TensorName.other("x")), 0
    )


def reduce(name: str, after: Sequence[Instruction] = ()) -> Instruction:
    mnemonic, stream = f"REDUCE_{name}", Stream.along(name)
    task = Task(
        Op.ALL_REDUCE,
        0,
        mnemonic=mnemonic,
        stream=stream,
        group=(0, 1),
        tensor=TensorName.other(name),
    )
    return Instruction(task, -1, after)


def ring() -> list[list[Instruction]]:
    """Each rank sends only after it has received: nobody begins."""
    ranks = []
    for rank in range(3):
        first = receive((rank - 1) % 3)
        ranks.append([first, send((rank + 1) % 3, after=[first])])
    return ranks


def crossed() -> list[list[Instruction]]:
    """Two groups of the same ranks, entered in opposite orders."""
    ranks = []
    for names in ("ab", "ba"):
        first = reduce(names[0])
        ranks.append([first, reduce(names[1], after=[first])])
    return ranks


def waits_for_later() -> list[list[Instruction]]:
    later = compute(1)
    return [[send(1, after=[later]), later], [receive(0)]]


def waits_for_another_rank() -> list[list[Instruction]]:
    first = compute(0)
    return [[first], [compute(1, after=[first])]]


def waits_for_a_stranger() -> list[list[Instruction]]:
    old = compute(7)
    Program([[old]])  # has the rank and index of the 0F0 below, but is not it
    return [[compute(0), compute(1, after=[old])]]


REFUSED = {
    "all wait for each other": (ring(), "deadlock: rank 0 .*0RECV0.*; rank 1 .*; rank 2 "),
    "crossed collectives": (crossed(), "deadlock: rank 0 .*0REDUCE_a; rank 1 .*0REDUCE_b"),
    "waits for a later one": (waits_for_later(), "rank 0: 0SEND0 waits for 0F1"),
    "waits for another rank": (waits_for_another_rank(), "rank 1: 0F1 waits for 0F0"),
    "waits for a stranger": (waits_for_a_stranger(), "rank 0: 0F1 waits for 0F7"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    ranks, message = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(message).replace(r"\.\*", ".*")) as refusal:
        check_deadlock(Program(ranks))
    assert "\n" not in str(refusal.value)


class Second(Costs):
    """Everything takes one second."""

    def __init__(self) -> None:
        self.capacities: dict[str, float] = {}

    def seconds(self, instruction: Instruction) -> float:
        return 1.0


@pytest.mark.parametrize("ranks", [ring, crossed, waits_for_later])
def test_the_engine_refuses_a_deadlock_too(ranks) -> None:
    program = Program(ranks())
    if ranks is waits_for_later:  # not a deadlock, only unusual: the list is not its order
        assert simulate(program, Second()).iteration_time == 2.0
        return
    with pytest.raises(ValueError, match=r"deadlock: rank 0: .* never starts"):
        simulate(program, Second())


def exchange() -> list[list[Instruction]]:
    """Both send first and receive second, which needs a stream for each direction."""
    return [[send(1 - rank), receive(1 - rank)] for rank in range(2)]


def unequal_counts() -> list[list[Instruction]]:
    return [[send(1), send(2)], [receive(0)], [receive(0)], []]


@pytest.mark.parametrize("ranks", [exchange, unequal_counts])
def test_accepted(ranks) -> None:
    check_deadlock(Program(ranks()))
