"""Streams run beside each other, each in order."""

from __future__ import annotations

import threading
import time
from typing import ClassVar

import pytest
import torch

from runtime.executor import anchor, streams
from runtime.executor.streams import Stopwatch, Stream

CUDA = torch.device("cuda", 0)


CPU = torch.device("cpu")


class Account:
    """Makes work that notes when each half ran, and in which thread."""

    def __init__(self):
        self.seen = []

    def work(self, name, gate=None, broken=None):
        self.note(name, "launched")
        if broken == "launched":
            raise KeyError(name)
        yield
        if gate is not None:
            assert gate.wait(30.0)
        if broken == "ended":
            raise KeyError(name)
        self.note(name, "ended")

    def note(self, name, what):
        self.seen.append((name, what, threading.current_thread().name))

    def of(self, name):
        return [(what, where) for n, what, where in self.seen if n == name]


@pytest.fixture
def account():
    return Account()


@pytest.fixture(params=[True, False], ids=["shared", "alone"])
def stream(request):
    made = Stream("other", CPU, shared=request.param)
    yield made
    made.close()


HERE = threading.current_thread().name


@pytest.mark.parametrize("ready", [True, False])
def test_a_stream_runs_in_order(stream, account, ready):
    tickets = [stream.submit(account.work(n), ready) for n in range(50)]
    assert tickets[-1].wait(30.0)
    assert all(ticket.ended and ticket.wait(0.0) for ticket in tickets)
    order = [(n, what) for n, what, _ in account.seen]
    assert order == [(n, what) for n in range(50) for what in ("launched", "ended")]


@pytest.mark.parametrize("half", ["launched", "ended"])
@pytest.mark.parametrize("ready", [True, False])
def test_an_error_reaches_who_waits_and_nobody_else(stream, account, ready, half):
    failed = stream.submit(account.work("bad", broken=half), ready)
    after = stream.submit(account.work("good"), ready)
    assert after.wait(30.0)
    with pytest.raises(KeyError, match="bad"):
        failed.wait(30.0)


def test_what_is_ready_is_launched_at_once_and_ended_by_who_waits(account):
    stream = Stream("other", CPU)
    ticket = stream.submit(account.work("message"), ready=True)
    assert account.of("message") == [("launched", HERE)] and not ticket.ended
    assert ticket.wait(30.0)
    assert account.of("message") == [("launched", HERE), ("ended", HERE)]
    stream.close()


def test_the_thread_ends_what_nobody_waits_for(account):
    stream = Stream("other", CPU)
    tickets = [stream.submit(account.work(name), ready=True) for name in "ab"]
    stream.attend()
    deadline = time.monotonic() + 30.0
    while not tickets[-1].ended and time.monotonic() < deadline:
        time.sleep(0.001)
    assert account.of("a") == [("launched", HERE), ("ended", "other")]
    assert account.of("b") == [("launched", "other"), ("ended", "other")]
    stream.close()


def test_a_stream_that_is_not_shared_runs_in_its_thread_only(account):
    stream = Stream("other", CPU, shared=False)
    assert stream.submit(account.work("slow"), ready=True).wait(30.0)
    assert account.of("slow") == [("launched", "other"), ("ended", "other")]
    stream.close()


def test_a_ticket_does_not_wait_for_ever(account):
    stream, gate = Stream("other", CPU, shared=False), threading.Event()
    ticket = stream.submit(account.work("late", gate))
    assert not ticket.wait(0.01)
    gate.set()
    assert ticket.wait(30.0)
    stream.close()


def test_streams_that_wait_for_each_other_get_on(account):
    """One thread may wait for what another stream's thread has not been told to run."""
    first, second = Stream("first", CPU), Stream("second", CPU)
    for _ in range(200):
        message = first.submit(account.work("message"), ready=True)

        def reply(message=message):
            assert message.wait(30.0)
            yield

        answer = second.submit(reply())
        third = first.submit(account.work("third"))
        assert answer.wait(30.0) and third.wait(30.0)
    first.close()
    second.close()


class Event:
    """Of a device whose clock, in ms, runs ahead of what is recorded."""

    clock_ms = 0.0

    sleepers: ClassVar[list[bool]] = []

    def __init__(self, enable_timing: bool, blocking: bool = False):
        assert enable_timing
        self.sleepers.append(blocking)

    def record(self, stream: object) -> None:
        self.at = Event.clock_ms

    def synchronize(self) -> None:
        Event.clock_ms += 100.0  # the host notices late

    def elapsed_time(self, other: Event) -> float:
        return other.at - self.at


def test_an_end_on_a_gpu_is_when_the_device_came_there(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(anchor, "TRIALS", 1)
    monkeypatch.setattr(streams.time, "perf_counter", lambda: 5.0)
    watch = Stopwatch(CUDA)
    watch.restart()
    Event.clock_ms = 250.0
    assert watch.finish() == pytest.approx(5.25)
    watch.restart()
    Event.clock_ms += 10.0
    assert watch.finish() == pytest.approx(5.0 + 0.11)
    assert Stopwatch(torch.device("cpu")).finish() == 5.0
    assert not any(Event.sleepers)  # the thread that walks the list
    thread = threading.Thread(target=watch.finish)
    thread.start()
    thread.join()
    assert Event.sleepers[-1]
