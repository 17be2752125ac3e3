"""Summaries have what other calls must know, and refuse what is wrong inside a template."""

from __future__ import annotations

from one_tensor import FREE, MAKE, SEND
from simulator.program.call_summary import summary_of
from simulator.program.template import Entry, Template


def test_a_template_that_is_wrong_by_itself_has_no_summary() -> None:
    assert summary_of(Template([Entry(MAKE), Entry(MAKE)])) is None
    assert summary_of(Template([Entry(MAKE), Entry(FREE), Entry(SEND)])) is None
    inner = summary_of(Template([Entry(MAKE), Entry(SEND), Entry(FREE, (1,))]))
    assert inner is not None
    assert inner.events == ()  # others need not know
