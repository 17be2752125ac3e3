"""Streams of the host do what CUDA's do: in order, beside each other, by events."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from runtime.executor.host_streams import HostStream, HostStreams


@pytest.fixture
def streams():
    made = HostStreams()
    yield made
    made.close()


def test_a_stream_is_made_once_and_works_in_order(streams):
    seen, done = [], streams.event()
    stream = streams.stream("a")
    assert streams.stream("a") is stream
    for number in range(50):
        stream.launch(lambda number=number: seen.append(number))
    stream.record(done)
    assert done.wait(30.0)
    assert seen == list(range(50))


def test_a_stream_waits_for_an_event_as_it_was_recorded_last(streams):
    """And the host goes on; recording again later changes nothing for who waits already."""
    gate, seen, event, done = threading.Event(), [], streams.event(), streams.event()
    assert event.query()  # never recorded
    first, second = streams.stream("first"), streams.stream("second")
    first.launch(lambda: gate.wait(30.0))
    first.launch(lambda: seen.append("first"))
    first.record(event)
    assert not event.query()
    second.wait(event)
    second.launch(lambda: seen.append("second"))
    second.record(done)
    first.record(event)
    assert not done.wait(0.02)
    gate.set()
    assert done.wait(30.0)
    assert event.wait(30.0)
    assert seen == ["first", "second"]
    assert event.seconds() > 0 and done.seconds() > 0


def test_nothing_passes_behind_work_that_failed(streams):
    def fail():
        raise KeyError("broken")

    stream, before, behind = streams.stream("a"), streams.event(), streams.event()
    stream.record(before)
    stream.launch(fail)
    stream.record(behind)
    assert before.wait(30.0)
    assert not behind.wait(0.05)


def test_a_stream_that_waits_for_ever_can_be_given_up():
    streams = HostStreams()
    never = streams.event()
    never.mark.passed.clear()
    stream = streams.stream("a")
    stream.wait(never)
    streams.close()
    assert not stream._thread.is_alive()


def test_streams_that_hang_are_waited_for_together(monkeypatch):
    waited, gate, streams = [], threading.Event(), HostStreams()
    for name in "abc":
        streams.stream(name).launch(gate.wait)
    monkeypatch.setattr(HostStream, "join", lambda self, timeout_s: waited.append(timeout_s))
    moments = iter([5, 5.25, 6, 7])
    clock = SimpleNamespace(monotonic=lambda: next(moments))
    monkeypatch.setattr("runtime.executor.host_streams.time", clock)
    streams.close()
    gate.set()
    assert waited == [0.75, 0, 0]
