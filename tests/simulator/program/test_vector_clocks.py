"""What surely has ended when an instruction starts is what waits lead back to."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.program import Program
from simulator.program.stream import COMPUTE_STREAM, Stream
from simulator.program.task import Task
from simulator.program.vector_clocks import Order, clocks
from simulator.program.walk import predecessors

SEND = Stream.send(1)
STREAMS = (COMPUTE_STREAM, SEND, Stream.recv(1), Stream.along("data"))


@st.composite
def lists(draw) -> list[Instruction]:
    """Instructions of one rank with any waits, and those that every program must have."""
    made: list[Instruction] = []
    for stream in draw(st.lists(st.sampled_from(STREAMS), min_size=1, max_size=10)):
        chosen = draw(st.sets(st.integers(0, len(made) - 1), max_size=2)) if made else set()
        after = [made[index] for index in sorted(chosen)]
        if stream != COMPUTE_STREAM:  # communication waits for the compute before it
            after += [i for i in made if i.task.stream == COMPUTE_STREAM and i not in after]
        made.append(Instruction(Task(Op.FORWARD, 0, stream=stream), len(made), after))
    return Program([made]).ranks[0]


def surely_ended(waits: list[list[Instruction]], until: Instruction) -> set[int]:
    """Every instruction that a chain of waits leads back to."""
    found: set[int] = set()
    todo = [until]
    while todo:
        for other in waits[todo.pop().uid]:
            if other.uid not in found:
                found.add(other.uid)
                todo.append(other)
    return found


@given(lists())
def test_an_order_is_the_closure_of_the_waits(instructions: list[Instruction]) -> None:
    waits = predecessors(Program([instructions]))
    order = Order(instructions)
    for first, second in combinations(instructions, 2):
        if first.task.stream == COMPUTE_STREAM:
            assert order.holds(first, second)  # the host is behind it
        else:
            assert order.holds(first, second) == (first.uid in surely_ended(waits, second))


def test_a_clock_has_the_last_of_every_stream() -> None:
    def make(stream: Stream, *after: Instruction) -> Instruction:
        return Instruction(Task(Op.FORWARD, 0, stream=stream), 0, after)

    sent, again = make(SEND), make(SEND)
    waited = make(COMPUTE_STREAM, again)
    other = make(Stream.along("data"), waited)
    instructions = Program([[sent, again, waited, other]]).ranks[0]
    assert clocks(instructions) == [{}, {SEND: 0}, {SEND: 1}, {SEND: 1}]
