"""One clock for all ranks."""

from __future__ import annotations

import time

import pytest
import torch.distributed as dist

from runtime.measurement import clock as module
from runtime.measurement.clock import LEAD_S, Clock, host_name


def test_a_common_start_lies_ahead_and_is_waited_for(alone, monkeypatch):
    clock = Clock()
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    clock.offset = 5.0
    assert clock.now() == 105.0
    assert clock.common_start() == pytest.approx(105.0 + LEAD_S)
    assert slept == [pytest.approx(LEAD_S)]


def test_the_offset_is_that_of_the_shortest_round_trip(alone, monkeypatch):
    """Rank 0's clock is 50 s ahead; one way of a message is slower than the other, but for one."""
    clock, now, delays = Clock(), [10.0], iter([(0.3, 0.1), (0.1, 0.1), (0.1, 0.7)] * 5)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    way = {}

    def send(stamp, other):
        way["there"], way["back"] = next(delays)
        now[0] += way["there"]
        way["stamp"] = now[0] + 50.0

    def receive(stamp, other):
        stamp[0] = way["stamp"]
        now[0] += way["back"]

    monkeypatch.setattr(dist, "send", send)
    monkeypatch.setattr(dist, "recv", receive)
    assert clock._ping(1) == pytest.approx(50.0)
    assert module.PINGS == 15


def test_offsets_are_measured_again_because_clocks_drift(alone, monkeypatch):
    """Rank 1 is on another host, whose clock runs away from that of rank 0."""
    clock, pinged = Clock(), iter([50.0, 50.5])
    clock.hosts = ["a", "b"]
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(clock, "_ping", lambda other: next(pinged))
    for expected in (50.0, 50.5):
        clock.synchronize()
        assert clock.offset == expected
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    clock.hosts = ["a", "a"]
    clock.synchronize()  # nobody is asked


def test_hosts_of_one_name_are_told_apart(monkeypatch):
    boots = iter(["one\n", "other\n"])
    monkeypatch.setattr(module.Path, "read_text", lambda path: next(boots))
    assert host_name() != host_name()

    def missing(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(module.Path, "read_text", missing)
    assert host_name() == module.socket.gethostname()
