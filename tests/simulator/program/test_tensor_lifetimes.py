"""Tensors that are read too early, freed too early, or never freed are refused."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from simulator import load, lower
from simulator.program.check import check_program
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.stream import COMPUTE_STREAM, Stream
from simulator.program.task import Task
from simulator.program.tensors import Tensor, TensorName
from written_out import written_out


def compute(
    microbatch: int = 0,
    after: Sequence[Instruction] = (),
    allocates: str = "",
    frees: str = "",
    op: Op = Op.FORWARD,
) -> Instruction:
    task = Task(
        op,
        stage=0,
        allocates=tuple(Tensor(TensorName.other(name), 8) for name in allocates.split()),
        frees=tuple(map(TensorName.other, frees.split())),
    )
    return Instruction(task, microbatch, after)


def send(
    peer: int,
    microbatch: int = 0,
    after: Sequence[Instruction] = (),
    name: str = "x",
    frees: str = "",
) -> Instruction:
    where = {"stream": Stream.send(peer), "peer": peer}
    task = Task(
        Op.SEND,
        0,
        tensor=TensorName.other(name),
        nbytes=8,
        frees=tuple(map(TensorName.other, frees.split())),
        **where,
    )
    return Instruction(task, microbatch, after)


def receive(
    peer: int,
    microbatch: int = 0,
    after: Sequence[Instruction] = (),
    name: str = "x",
    allocates: str = "",
) -> Instruction:
    made = tuple(Tensor(TensorName.other(name), 8) for name in allocates.split())
    where = {"stream": Stream.recv(peer), "peer": peer}
    task = Task(Op.RECV, 0, tensor=TensorName.other(name), nbytes=8, allocates=made, **where)
    return Instruction(task, microbatch, after)


def in_flight(*waits: int) -> list[list[Instruction]]:
    """Tensor a is made, sent to two ranks, and freed by a pass that waits for these sends."""
    made = compute(allocates="a")
    sends = [send(1, after=[made], name="a"), send(2, after=[made], name="a")]
    freed = compute(after=[sends[number] for number in waits], frees="a", op=Op.BACKWARD)
    return [[made, *sends, freed], [receive(0, name="a")], [receive(0, name="a")]]


def passed_on(waits: bool) -> list[list[Instruction]]:
    """Rank 1 receives a and sends it on."""
    taken = receive(0, name="a", allocates="a")
    given = send(2, after=[taken] if waits else [], name="a", frees="a")
    return [[send(1, name="a")], [taken, given], [receive(1, name="a")]]


def behind_others() -> list[list[Instruction]]:
    """Who waits for a later send of a stream, or for a pass that has waited, need not wait."""
    made = compute(allocates="a b")
    first, second = send(1, after=[made], name="a"), send(1, after=[made], name="b")
    waited = compute(1, after=[second])
    freed = [compute(frees="a", op=Op.BACKWARD), compute(frees="b", op=Op.BACKWARD_WEIGHT)]
    ends = [receive(0, name="a"), receive(0, name="b")]
    return [[made, first, second, waited, *freed], ends]


GONE = compute(frees="a", op=Op.BACKWARD)

REFUSED = {
    "freed twice": (
        [[compute(3, allocates="a"), compute(3, frees="a"), compute(3, frees="a", op=Op.BACKWARD)]],
        "rank 0: 0B3 frees a of microbatch 3: 0F3 already freed it",
    ),
    "freed but never made": (
        [[], [compute(0, allocates="a", frees="a"), compute(1, frees="a")]],
        "rank 1: 0F1 frees a of microbatch 1: never made",
    ),
    "never freed": (
        [[], [compute(0, allocates="a b"), compute(0, frees="a")]],
        "rank 1: 0F0 allocates b of microbatch 0, which is never freed",
    ),
    "made twice": (
        [[compute(allocates="a"), compute(allocates="a", frees="a")]],
        "rank 0: 0F0 allocates a of microbatch 0, which 0F0 already holds",
    ),
    "freed while it is sent": (
        in_flight(0),
        "rank 0: 0B0 frees a of microbatch 0 and does not wait for 0SEND0, which reads it",
    ),
    "sent while it is received": (
        passed_on(False),
        "rank 1: 0SEND0 reads a of microbatch 0 and does not wait for 0RECV0, which makes it",
    ),
    "sent when it is freed": (
        [[compute(allocates="a"), GONE, send(1, after=[GONE], name="a")], [receive(0, name="a")]],
        "rank 0: 0SEND0 reads a of microbatch 0: 0B0 already freed it",
    ),
    "sent before it is made": (
        [[send(1, name="a"), compute(allocates="a", frees="a")], [receive(0, name="a")]],
        "rank 0: 0SEND0 reads a of microbatch 0, which 0F0 makes later",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    ranks, message = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(message).replace(r"\.\*", ".*")) as refusal:
        check_program(Program(ranks))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("ranks", [lambda: in_flight(0, 1), lambda: passed_on(True), behind_others])
def test_accepted(ranks) -> None:
    check_program(Program(ranks()))


PLANS = [
    {"pipeline": 2, "microbatches": 3},
    {"pipeline": 2, "microbatches": 4, "schedule": "zb-h1", "tensor": 2, "sequence_parallel": True},
    {"context": 2, "tensor": 2},
    {"context": 2, "context_style": "ulysses", "recompute": "full", "pipeline": 2},
    {"expert": 2, "zero": 2, "pipeline": 2, "microbatches": 2},
]


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_a_wait_that_is_left_out_of_a_real_program_is_missed(plan: dict[str, object]) -> None:
    """Of passes, and of collectives, for the stream that makes what they read."""
    model = "moe-gpt" if "expert" in plan else "gpt"
    keys = {"pipeline": 1, "microbatches": 1} | plan
    sets = [f"parallel.{key}={str(value).lower()}" for key, value in keys.items()]
    program = written_out(
        lower(load(None, [f"workload.model={model}", "workload.layers=2", *sets]))
    )
    taken = 0
    for instruction in program.ranks[0]:
        given = instruction.after
        for other in given:
            made = {tensor.name for tensor in other.task.allocates}
            if other.task.stream == COMPUTE_STREAM or not made.intersection(
                instruction.task.sources
            ):
                continue
            stream = other.task.stream  # what is behind `other` there may be waited for, too
            instruction.after = tuple(each for each in given if each.task.stream != stream)
            with pytest.raises(ValueError, match=r" reads .* and does not wait for .* makes it$"):
                check_program(program)
            instruction.after, taken = given, taken + 1
    assert taken
    check_program(program)


def test_tensors_are_followed_per_microbatch_and_rank() -> None:
    rank = [compute(m, allocates="a") for m in (0, 1)] + [compute(m, frees="a") for m in (0, 1)]
    other = [compute(m, allocates="a") for m in (0, 1)] + [compute(m, frees="a") for m in (1, 0)]
    check_program(Program([rank, other]))
