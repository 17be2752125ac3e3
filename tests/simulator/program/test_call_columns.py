"""Columns of calls say which template each has, where it is, and what its arguments are."""

from __future__ import annotations

from simulator.program.call_columns import CallColumns
from simulator.program.operations import Op
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.template import Call, Entry, Template, argument

TWO = Template([Entry(Task(Op.FORWARD, 0)), Entry(Task(Op.SEND, 0, stream=Stream.send(1), peer=1))])
BACK = Template([Entry(Task(Op.BACKWARD, 0), (argument(0), argument(1)))])


def test_calls_of_two_templates() -> None:
    first, second = Call(TWO, 0), Call(TWO, 1)
    third, fourth = (
        Call(BACK, 0, [(first, 1), (first, 0)]),
        Call(BACK, 1, [(second, 1), (first, 1)]),
    )
    columns = CallColumns([first, third, second, fourth])
    assert columns.templates == [TWO, BACK]
    assert columns.template.tolist() == [0, 1, 0, 1]
    assert columns.microbatch.tolist() == [0, 0, 1, 1]
    assert columns.begin.tolist() == [0, 2, 3, 5, 6]
    assert len(columns) == 6
    assert columns.of_template(1).tolist() == [1, 3]
    assert columns.arguments(1).tolist() == [[1, 0], [4, 1]]


def test_positions_follow_the_order_of_a_template() -> None:
    turned = Call(Template(TWO.entries, [1, 0]))
    asks = Call(Template([Entry(Task(Op.BACKWARD, 0), (argument(0),))]), 0, [(turned, 0)])
    assert CallColumns([turned, asks]).arguments(1).tolist() == [[1]]
