"""Every instruction gets its place in time from its stream, its waits and its participants."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from simulator import load, lower
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.tensors import TensorName
from simulator.program.walk import Walk, predecessors


def compute(after: Sequence[Instruction] = (), microbatch: int = 0) -> Instruction:
    return Instruction(Task(Op.FORWARD, stage=0), microbatch, after)


def message(op: Op, peer: int, after: Sequence[Instruction] = ()) -> Instruction:
    stream = Stream.send(peer) if op is Op.SEND else Stream.recv(peer)
    return Instruction(
        Task(op, 0, stream=stream, peer=peer, tensor=TensorName.other("x")), 0, after
    )


class Seconds(Walk):
    """Instructions take the seconds that a table has of their labels."""

    def __init__(self, program: Program, seconds: dict[str, float]) -> None:
        super().__init__(program)
        self.seconds = seconds

    def begin(self, participants: tuple[int, ...], time: float) -> None:
        label = self.program.instruction(participants[0]).label
        self.finish(participants, time + self.seconds[label])


class Later(Walk):
    """Ends are announced from outside, as a simulator with a clock of its own does."""

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.begun: list[tuple[tuple[int, ...], float]] = []

    def begin(self, participants: tuple[int, ...], time: float) -> None:
        self.begun.append((participants, time))


def relay() -> Program:
    """Rank 0 computes and sends; rank 1 receives after a pass of its own, and computes."""
    first, other = compute(), compute(microbatch=5)
    received = message(Op.RECV, 0, [other])
    return Program(
        [
            [first, message(Op.SEND, 1, [first]), compute(microbatch=1)],
            [other, received, compute([received], 6)],
        ]
    )


def test_times_follow_streams_waits_and_participants() -> None:
    program = relay()
    walk = Seconds(program, {"0F0": 2, "0SEND0": 10, "0F1": 1, "0F5": 3, "0F6": 1})
    walk.advance()
    by_label = {i.label: (walk.posted[i.uid], walk.start[i.uid], walk.end[i.uid]) for i in program}
    assert by_label == {
        "0F0": (0, 0, 2),
        "0SEND0": (2, 3, 13),
        "0F1": (2, 2, 3),
        "0F5": (0, 0, 3),
        "0RECV0": (3, 3, 13),
        "0F6": (13, 13, 14),
    }
    assert walk.stuck() == []


def test_an_end_may_be_announced_later() -> None:
    program = relay()
    walk = Later(program)
    walk.advance()
    labels = [program.instruction(participants[0]).label for participants, _ in walk.begun]
    assert labels == ["0F0", "0F5"]
    assert [i.label for i in walk.stuck()] == ["0F0", "0F5"]
    for _ in range(3):
        begun, walk.begun = walk.begun, []
        for participants, time in begun:
            walk.finish(participants, time + 1)
        walk.advance()
    assert {i.label: walk.end[i.uid] for i in program} == {
        "0F0": 1, "0SEND0": 2, "0F1": 2, "0F5": 1, "0RECV0": 2, "0F6": 3,
    }  # fmt: skip


def test_what_waits_for_what_never_ends_is_stuck() -> None:
    lonely = compute()
    program = Program([[lonely, compute([lonely], 1)], [compute()]])
    lonely.after = (program.ranks[0][1],)
    walk = Walk(program)
    walk.advance()
    assert [repr(instruction) for instruction in walk.stuck()] == [repr(lonely)]


@pytest.mark.parametrize("schedule", ["1f1b", "zb-h1", "gpipe"])
def test_a_lowered_program_is_walked_to_its_end_in_no_time(schedule: str) -> None:
    sets = ["parallel.pipeline=3", "parallel.data=2", f"parallel.schedule={schedule}"]
    walk = Walk(lower(load(None, sets)))
    walk.advance()
    assert set(walk.posted) == set(walk.start) == set(walk.end) == {0.0}


def test_predecessors_are_the_stream_and_what_is_named() -> None:
    program = relay()
    first, _, last = program.ranks[0]
    other, received, final = program.ranks[1]
    assert predecessors(program) == [[], [first], [first], [], [other], [received, other]]
    assert (last.uid, final.uid) == (2, 5)
