"""Summaries have what other calls must know, and refuse what is wrong inside a template."""

from __future__ import annotations

from simulator.program.call_summary import summary_of
from simulator.program.operations import Op
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.template import Entry, Template
from simulator.program.tensors import Tensor, TensorName

MAKE = Task(Op.FORWARD, 0, allocates=(Tensor(TensorName.other("a"), 8),))
SEND = Task(
    Op.SEND,
    0,
    stream=Stream.send(1),
    peer=1,
    tensor=TensorName.other("a"),
    sources=(TensorName.other("a"),),
)
FREE = Task(Op.BACKWARD, 0, frees=(TensorName.other("a"),))


def test_a_template_that_is_wrong_by_itself_has_no_summary() -> None:
    assert summary_of(Template([Entry(MAKE), Entry(MAKE)])) is None
    assert summary_of(Template([Entry(MAKE), Entry(FREE), Entry(SEND)])) is None
    inner = summary_of(Template([Entry(MAKE), Entry(SEND), Entry(FREE, (1,))]))
    assert inner is not None
    assert inner.events == ()  # others need not know
