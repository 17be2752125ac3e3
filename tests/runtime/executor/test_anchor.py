"""The two clocks are tied where the host was quickest to notice."""

from __future__ import annotations

import pytest
import torch

from runtime.executor import anchor
from runtime.executor.anchor import Anchor

DEVICE_AHEAD_S = 100.0
LATE_S = [0.010, 0.004, 0.0002, 0.001, 0.003]


class Clock:
    """The host's clock; the device's is ahead of it. The host notices every event late."""

    host_s = 5.0

    def __init__(self):
        self.late = iter(LATE_S)


class Event:
    """Reached half way of what it takes to notice a quick one; then the host is late, too."""

    clock: Clock

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self, stream):
        Clock.host_s += 0.0001
        self.at_s = Clock.host_s + DEVICE_AHEAD_S

    def synchronize(self):
        Clock.host_s += next(self.clock.late)

    def elapsed_time(self, other):
        return 1e3 * (other.at_s - self.at_s)


def test_an_event_is_when_the_device_came_there_however_late_the_host_was(monkeypatch):
    Event.clock = Clock()
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(anchor.time, "perf_counter", lambda: Clock.host_s)
    tied = Anchor(torch.device("cuda", 0))
    assert next(Event.clock.late, None) is None  # all of them were tried
    event = Event(True)
    event.record(None)
    seconds = Clock.host_s
    Clock.host_s += 1.0
    # Off by half of the quickest bracket at most, and not by what the host came late otherwise.
    assert tied.seconds(event) == pytest.approx(seconds, abs=(0.0001 + min(LATE_S)) / 2)
