"""Requests are served in order of time, whatever order they are heard of in."""

from __future__ import annotations

from parameter_server import server_program
from simulator.program.accept_queue import Decision
from simulator.program.arrival import FirstCome, RandomOrder
from simulator.program.arrivals import NEVER, Arrivals, idle_instructions
from simulator.program.program import Program
from simulator.program.walk import Walk


def program() -> Program:
    """ACCEPTs 0, 2, …, 10 and steps beside them; workers with requests 12 and 14, 15 and 17, …"""
    return server_program(FirstCome(), [1, 1, 1])


def test_nobody_is_served_before_the_server_is_ready() -> None:
    arrivals = Arrivals(program().queues)
    assert not arrivals.arrive(12, 3.0)
    assert arrivals.soonest() == NEVER
    assert arrivals.serve() is None
    assert not arrivals.arrive(0, 5.0)
    assert arrivals.soonest() == 5.0
    assert arrivals.serve() == (5.0, Decision(0, 12))
    assert arrivals.serve() is None


def test_who_comes_earlier_is_served_first_and_at_equal_times_the_lower_rank() -> None:
    arrivals = Arrivals(program().queues)
    for uid, time in ((0, 0.0), (18, 2.0), (15, 2.0), (12, 9.0)):
        arrivals.arrive(uid, time)
    assert arrivals.serve() == (2.0, Decision(0, 15))
    arrivals.arrive(2, 1.0)  # the time of the server alone
    assert arrivals.soonest() == 2.0
    assert arrivals.serve() == (2.0, Decision(2, 18))
    arrivals.arrive(4, 3.0)
    assert arrivals.serve() == (9.0, Decision(4, 12))


def test_only_those_that_have_come_are_chosen_from() -> None:
    """Seeds differ in whom they choose, but at 1 second only worker 1 is there."""
    for seed in range(8):
        arrivals = Arrivals(server_program(RandomOrder(seed), [1, 1, 1]).queues)
        for uid, time in ((0, 0.0), (12, 1.0), (15, 1.5), (18, 2.0)):
            arrivals.arrive(uid, time)
        assert arrivals.serve() == (1.0, Decision(0, 12))


def test_a_step_without_an_update_is_idle() -> None:
    walk = Walk(program())
    walk.complete()
    assert walk.arrivals is not None
    assert idle_instructions(walk.program.queues, walk.arrivals.decisions) == [
        1,
        5,
        9,
    ]  # of the pulls, each before its push
    assert walk.stuck() == []


def test_a_record_decides_again() -> None:
    served = program()
    record = [Decision(2 * n, uid) for n, uid in enumerate((18, 20, 12, 15, 14, 17))]
    walk = Walk(served, record)
    walk.complete()
    assert walk.arrivals is not None
    assert walk.arrivals.decisions == record
    assert idle_instructions(walk.program.queues, walk.arrivals.decisions) == [1, 5, 7]


def test_ordinary_programs_have_no_queues() -> None:
    assert Program([[]]).queues == []
    assert Walk(Program([[]])).arrivals is None
