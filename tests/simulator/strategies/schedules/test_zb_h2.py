"""ZB-H2 spends memory only where it buys time: it is never longer than ZB-H1."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.strategies.schedules import zb_h1, zb_h2
from simulator.strategies.schedules.orders.longest_path import letters_of, makespan
from simulator.strategies.schedules.passes import Plan


def time(schedule, plan: Plan) -> float:
    orders = [letters_of(schedule.order(plan, rank)) for rank in range(plan.num_ranks)]
    return makespan(orders, plan.costs or [(1.0, 1.0, 1.0)] * plan.num_ranks, plan.p2p)


@pytest.mark.parametrize("p", range(1, 8))
def test_never_longer_than_zb_h1_for_equal_passes(p: int) -> None:
    for m in range(1, 2 * p + 3):
        assert time(zb_h2, Plan(p, m)) <= time(zb_h1, Plan(p, m)), m


def test_four_ranks_and_four_microbatches_take_15() -> None:
    assert time(zb_h2, Plan(4, 4)) == 15.0


@given(st.data(), st.integers(1, 6), st.integers(1, 14), st.sampled_from([0.0, 0.25, 2.0]))
def test_never_longer_whatever_the_costs(data: st.DataObject, p: int, m: int, p2p: float) -> None:
    seconds = st.sampled_from([0.25, 1.0, 1.5, 3.0])
    costs = data.draw(st.lists(st.tuples(seconds, seconds, seconds), min_size=p, max_size=p))
    plan = Plan(p, m, 1, tuple(costs), p2p)
    assert time(zb_h2, plan) <= time(zb_h1, plan) * (1 + 1e-8)


def test_all_ranks_take_the_orders_of_zb_h1_where_those_are_shorter() -> None:
    plan = Plan(3, 5, 1, ((1.0, 1.0, 1.0), (1.0, 3.0, 3.0), (3.0, 3.0, 1.0)))
    assert [zb_h2.order(plan, rank) for rank in range(3)] == [
        zb_h1.order(plan, rank) for rank in range(3)
    ]
    alike = plan._replace(costs=())
    assert zb_h2.order(alike, 0) != zb_h1.order(alike, 0)


@pytest.mark.parametrize(("p", "m"), [(2, 3), (4, 7), (4, 12)])
def test_with_enough_microbatches_the_papers_order(p: int, m: int) -> None:
    """Two forwards a hop come before the first backward, and `W` lags by two for every hop."""
    for rank in range(p):
        letters = letters_of(zb_h2.order(Plan(p, m), rank))
        assert letters.index("I") == 2 * (p - 1 - rank) + 1
        assert letters[: letters.index("W")].count("I") == 2 * rank + 1 if 2 * rank < m else m
