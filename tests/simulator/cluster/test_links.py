"""A TCP connection: its speed, and slow start."""

from __future__ import annotations

import pytest

from simulator.cluster.links import FIRST_WINDOW, Connection, Link, Protocol

CONNECTION = Connection(bandwidth=1e9, window=1e6)


def test_a_connection_sends_a_window_in_each_round_trip_at_most() -> None:
    assert CONNECTION.speed(0.0) == 1e9
    assert CONNECTION.speed(1e-4) == 1e9
    assert CONNECTION.speed(5e-3) == pytest.approx(1e6 / 10e-3)


def test_slow_start_doubles_what_is_under_way() -> None:
    """Windows of 1, 2, 4, 8 in four round trips, where 8 would take little more than one."""
    speed = 8 * FIRST_WINDOW / 10e-3
    assert CONNECTION.start_s(5e-3, speed, 1e9) == pytest.approx(2 * 10e-3)
    assert CONNECTION.start_s(5e-3, speed, 4 * FIRST_WINDOW) == pytest.approx(1 * 10e-3)
    assert CONNECTION.start_s(5e-3, speed, FIRST_WINDOW) == 0.0
    assert CONNECTION.start_s(0.0, speed, 1e9) == 0.0


def test_every_protocol_of_a_link_gets_farther() -> None:
    link = Link(1e9, {"LL": Protocol(1e-6, 0.5), "Simple": Protocol(5e-6, 1.0)}, CONNECTION)
    farther = link.farther(1e-3)
    assert [way.latency_s for way in farther.protocols.values()] == [1.001e-3, 1.005e-3]
    assert (farther.efficiency, farther.connection) == (1.0, CONNECTION)
