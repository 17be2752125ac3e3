"""Streams run beside each other, each in order."""

from __future__ import annotations

import pytest
import torch

from runtime.executor import streams
from runtime.executor.streams import Stopwatch, Stream, Ticket

CUDA = torch.device("cuda", 0)


def test_a_stream_runs_in_order_and_hands_errors_to_who_waits():
    stream, seen = Stream("test", torch.device("cpu")), []

    def fail():
        raise KeyError("broken")

    tickets = [stream.submit(lambda n=n: seen.append(n)) for n in range(50)]
    failed, after = stream.submit(fail), stream.submit(lambda: seen.append("after"))
    after.wait(30.0)
    assert seen == [*range(50), "after"]
    for ticket in tickets:
        ticket.wait(0.0)
    with pytest.raises(KeyError, match="broken"):
        failed.wait(30.0)
    stream.close()


def test_a_ticket_does_not_wait_for_ever():
    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        Ticket().wait(0.01)


class Event:
    """Of a device whose clock, in ms, runs ahead of what is recorded."""

    clock_ms = 0.0

    def __init__(self, enable_timing: bool):
        assert enable_timing

    def record(self, stream: object) -> None:
        self.at = Event.clock_ms

    def synchronize(self) -> None:
        Event.clock_ms += 100.0  # the host notices late

    def elapsed_time(self, other: Event) -> float:
        return other.at - self.at


def test_an_end_on_a_gpu_is_when_the_device_came_there(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(streams.time, "perf_counter", lambda: 5.0)
    watch = Stopwatch(CUDA)
    watch.restart()
    Event.clock_ms = 250.0
    assert watch.finish() == pytest.approx(5.25)
    watch.restart()
    Event.clock_ms += 10.0
    assert watch.finish() == pytest.approx(5.0 + 0.11)
    assert Stopwatch(torch.device("cpu")).finish() == 5.0
