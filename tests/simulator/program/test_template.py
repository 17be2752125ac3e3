"""Templates, calls, and the instructions that they mean."""

from __future__ import annotations

import pytest

from simulator.program.operations import Op
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.template import Call, Entry, Template, Variants, argument, expand

FORWARD = Task(Op.FORWARD, 0)
BACKWARD = Task(Op.BACKWARD, 0)
SEND = Task(Op.SEND, 0, stream=Stream.send(1), peer=1)
RECV = Task(Op.RECV, 0, stream=Stream.recv(1), peer=1)
SUM = Task(Op.ALL_REDUCE, 0, mnemonic="REDUCE_GRAD", stream=Stream.along("data"), group=(0, 1))


def text(calls: list[Call]) -> list[str]:
    """Return the label of every instruction, with the positions of what it waits for."""
    listed = expand(calls)
    position = {instruction: number for number, instruction in enumerate(listed)}
    return [f"{i.label} {sorted(position[other] for other in i.after)}" for i in listed]


def test_a_template_is_written_out_once_for_each_call() -> None:
    template = Template([Entry(FORWARD), Entry(SEND), Entry(RECV, shift=1)])
    assert text([Call(template, 0), Call(template, 1)]) == [
        "0F0 []",
        "0SEND0 [0]",  # communication waits for the compute before it
        "0RECV1 [0]",
        "0F1 []",
        "0SEND1 [3]",
        "0RECV2 [3]",
    ]


def test_what_a_call_waits_for_outside_are_its_arguments() -> None:
    receive = Call.of_task(RECV, 4)
    template = Template([Entry(FORWARD), Entry(BACKWARD, (argument(0),)), Entry(SUM, shift=None)])
    assert text([receive, Call(template, 4, [(receive, 0)])]) == [
        "0RECV4 []",
        "0F4 []",
        "0B4 [0]",
        "0REDUCE_GRAD [2]",
    ]


def test_what_is_named_must_come_earlier() -> None:
    late = Call.of_task(RECV)
    with pytest.raises(KeyError):
        expand([Call.of_task(FORWARD, 0, [(late, 0)]), late])


def test_inserted_entries_leave_the_numbers_of_the_others() -> None:
    template = Template([Entry(FORWARD), Entry(BACKWARD), Entry(SEND, (1,))])
    more = template.changed({1: Entry(BACKWARD, (3,))}, [(0, Entry(RECV)), (0, Entry(SUM))])
    assert text([Call(more, 0)]) == [
        "0F0 []",
        "0RECV0 [0]",
        "0REDUCE_GRAD0 [0]",
        "0B0 [1]",
        "0SEND0 [3]",
    ]
    assert (template.computes, more.computes, more.order) == ((0, 1), (0, 1), (0, 3, 4, 1, 2))


def test_leading_communication_is_that_before_the_first_compute() -> None:
    assert Template([Entry(RECV), Entry(SUM), Entry(FORWARD), Entry(SEND)]).leading == (0, 1)
    assert Template([Entry(FORWARD), Entry(SEND)]).leading == ()
    assert Template([Entry(RECV)]).leading == (0,)


def test_equal_differences_give_one_template() -> None:
    variants, one, other = Variants(), Template([Entry(FORWARD)]), Template([Entry(FORWARD)])

    def make() -> Template:
        return Template([])

    first = variants.get(one, "a", make)
    assert variants.get(one, "a", make) is first
    assert variants.get(one, "b", make) is not first
    assert variants.get(other, "a", make) is not first
