"""Programs that would hang or leak are refused; the message says where."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from simulator import load, lower
from simulator.engine.engine import Costs, simulate
from simulator.program.check import check_program
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.task import Task
from simulator.program.tensors import Tensor


def compute(
    microbatch: int = 0,
    after: Sequence[Instruction] = (),
    allocates: str = "",
    frees: str = "",
    op: Op = Op.FORWARD,
    stream: str = "compute",
) -> Instruction:
    task = Task(
        op,
        stage=0,
        stream=stream,
        allocates=tuple(Tensor(name, 8) for name in allocates.split()),
        frees=tuple(frees.split()),
    )
    return Instruction(task, microbatch, after)


def send(
    peer: int,
    microbatch: int = 0,
    after: Sequence[Instruction] = (),
    nbytes: int = 8,
    name: str = "x",
    frees: str = "",
) -> Instruction:
    where = {"stream": f"send:{peer}", "peer": peer}
    task = Task(Op.SEND, 0, tensor=name, nbytes=nbytes, frees=tuple(frees.split()), **where)
    return Instruction(task, microbatch, after)


def receive(
    peer: int,
    microbatch: int = 0,
    after: Sequence[Instruction] = (),
    name: str = "x",
    allocates: str = "",
) -> Instruction:
    made = tuple(Tensor(name, 8) for name in allocates.split())
    where = {"stream": f"recv:{peer}", "peer": peer}
    task = Task(Op.RECV, 0, tensor=name, nbytes=8, allocates=made, **where)
    return Instruction(task, microbatch, after)


def reduce(
    name: str, group: tuple[int, ...] = (0, 1), stream: str = "data", after=(), nbytes: int = 8
) -> Instruction:
    mnemonic = f"REDUCE_{name}"
    task = Task(
        Op.ALL_REDUCE,
        0,
        mnemonic=mnemonic,
        stream=stream,
        group=group,
        tensor=name,
        nbytes=nbytes,
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
        first = reduce(names[0], stream=names[0])
        ranks.append([first, reduce(names[1], stream=names[1], after=[first])])
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


FIRST = compute()
GONE = compute(frees="a", op=Op.BACKWARD)

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
    "all wait for each other": (ring(), "deadlock: rank 0 .*0RECV0.*; rank 1 .*; rank 2 "),
    "crossed collectives": (crossed(), "deadlock: rank 0 .*0REDUCE_a; rank 1 .*0REDUCE_b"),
    "waits for a later one": (waits_for_later(), "rank 0: 0SEND0 waits for 0F1"),
    "waits for another rank": (waits_for_another_rank(), "rank 1: 0F1 waits for 0F0"),
    "waits for a stranger": (waits_for_a_stranger(), "rank 0: 0F1 waits for 0F7"),
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
    "communication on the compute stream": (
        [[compute(op=Op.SEND)]],
        "rank 0: 0SEND0 .*'compute'",
    ),
    "compute on another stream": ([[], [compute(stream="data")]], "rank 1: 0F0 .*'data'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    ranks, message = REFUSED[case]
    with pytest.raises(ValueError, match=re.escape(message).replace(r"\.\*", ".*")) as refusal:
        check_program(Program(ranks))
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


@pytest.mark.parametrize(
    "ranks",
    [exchange, unequal_counts, lambda: in_flight(0, 1), lambda: passed_on(True), behind_others],
)
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
    program = lower(load(None, [f"workload.model={model}", "workload.layers=2", *sets]))
    taken = 0
    for instruction in program.ranks[0]:
        given = instruction.after
        for other in given:
            made = {tensor.name for tensor in other.task.allocates}
            if other.task.stream == "compute" or not made.intersection(instruction.task.sources):
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
