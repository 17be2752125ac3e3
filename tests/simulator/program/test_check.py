"""Programs that would hang or leak are refused; the message says where."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from simulator.program.check import check_program
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.stream import COMPUTE_STREAM, Stream
from simulator.program.task import Task
from simulator.program.tensors import TensorName

DATA = Stream.along("data")


def compute(
    microbatch: int = 0, after: Sequence[Instruction] = (), stream: Stream = COMPUTE_STREAM
) -> Instruction:
    return Instruction(Task(Op.FORWARD, stage=0, stream=stream), microbatch, after)


def send(
    peer: int,
    microbatch: int = 0,
    after: Sequence[Instruction] = (),
    nbytes: int = 8,
    name: str = "x",
) -> Instruction:
    where = {"stream": Stream.send(peer), "peer": peer}
    task = Task(Op.SEND, 0, tensor=TensorName.other(name), nbytes=nbytes, **where)
    return Instruction(task, microbatch, after)


def receive(
    peer: int,
    microbatch: int = 0,
    after: Sequence[Instruction] = (),
    name: str = "x",
) -> Instruction:
    where = {"stream": Stream.recv(peer), "peer": peer}
    task = Task(Op.RECV, 0, tensor=TensorName.other(name), nbytes=8, **where)
    return Instruction(task, microbatch, after)


def reduce(
    name: str,
    group: tuple[int, ...] = (0, 1),
    stream: Stream = DATA,
    after=(),
    nbytes: int = 8,
) -> Instruction:
    mnemonic = f"REDUCE_{name}"
    task = Task(
        Op.ALL_REDUCE,
        0,
        mnemonic=mnemonic,
        stream=stream,
        group=group,
        tensor=TensorName.other(name),
        nbytes=nbytes,
    )
    return Instruction(task, -1, after)


FIRST = compute()

REFUSED = {
    "communication ahead of the host": (
        [[FIRST, compute(1), send(1, after=(FIRST,))], [receive(0)]],
        "rank 0: 0SEND0 is listed behind 0F1 and does not wait for it",
    ),
    "send without receive": (
        [[send(1, 4), compute()], [compute()]],
        "rank 0: 0SEND4 has no partner on rank 1",
    ),
    "receive without send": (
        [[send(1)], [receive(0, 0), receive(0, 1)]],
        "rank 1: 0RECV1 has no partner on rank 0",
    ),
    "send to nobody": ([[send(9)]], "rank 0: 0SEND0 has no partner on rank 9"),
    "collective without a member": (
        [[reduce("a", (0, 1, 2))], [reduce("a", (0, 1, 2))], []],
        "rank 0: 0REDUCE_a has no partner on rank 2",
    ),
    "collective of others": (
        [[reduce("a")], [reduce("a")], [reduce("a")]],
        "rank 2: 0REDUCE_a is not of its group (0, 1)",
    ),
    "groups in different orders": (
        [[reduce("a", (0, 1))], [reduce("a", (1, 0))]],
        "rank 0: 0REDUCE_a has no partner on rank 1",
    ),
    "collectives in different orders": (
        [[reduce("a"), reduce("b")], [reduce("b"), reduce("a")]],
        "rank 0: 0REDUCE_a (ALL_REDUCE a, 8 bytes) would meet rank 1: 0REDUCE_b .* orders differ",
    ),
    "microbatches in different orders": (
        [[send(1, 0), send(1, 1)], [receive(0, 1), receive(0, 0)]],
        "rank 0: 0SEND0 (message x of microbatch 0, 8 bytes) would meet rank 1: 0RECV1 ",
    ),
    "other payload": (
        [[send(1, nbytes=4)], [receive(0)]],
        "rank 0: 0SEND0 (message x of microbatch 0, 4 bytes) would meet rank 1: 0RE",
    ),
    "other tensor": ([[send(1, name="y")], [receive(0)]], "rank 0: 0SEND0 .* rank 1: 0RECV0 "),
    "other size": (
        [[reduce("a")], [reduce("a", nbytes=4)]],
        "rank 0: 0REDUCE_a .* rank 1: 0REDUCE_a",
    ),
    "communication on the compute stream": (
        [[Instruction(Task(Op.SEND, stage=0), 0)]],
        "rank 0: 0SEND0 .*'compute'",
    ),
    "text in the place of a tensor": (
        [[], [Instruction(replace(compute().task, frees=("x",)), 0)]],
        "rank 1: 0F0 names tensor 'x', not a TensorName",
    ),
    "text in the place of a stream": (
        [[], [compute(stream="data")]],
        "rank 1: 0F0 names stream 'data', not a Stream",
    ),
    "compute on another stream": (
        [[], [compute(stream=DATA)]],
        "rank 1: 0F0 .*'data'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    ranks, message = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(message).replace(r"\.\*", ".*")) as refusal:
        check_program(Program(ranks))
    assert "\n" not in str(refusal.value)
