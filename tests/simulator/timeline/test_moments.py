"""The order of changes at moments that are the same but for rounding."""

from __future__ import annotations

import numpy as np

from simulator.timeline.moments import in_order


def test_at_one_moment_what_is_given_back_comes_first() -> None:
    times = np.array([3.0, 1.0, 2.0 + 4e-16, 2.0])
    order, at = in_order(times, np.array([-1, 5, -5, 1]))
    assert order.tolist() == [1, 2, 3, 0]
    assert at.tolist() == [1.0, 2.0, 2.0, 3.0]


def test_moments_that_differ_keep_their_order() -> None:
    times = np.array([0.0, 1e-6, 1.0])
    order, at = in_order(times, np.array([1, -1, 1]))
    assert order.tolist() == [0, 1, 2]
    assert at.tolist() == times.tolist()


def test_nothing_is_in_order() -> None:
    order, at = in_order(np.array([]), np.array([]))
    assert order.size == at.size == 0
