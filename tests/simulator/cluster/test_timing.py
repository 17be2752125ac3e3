"""Timings: percentiles, tenths, and durations between measured sizes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.cluster.timing import Points, Timing, interpolate


def timed(points: list[tuple[int, float]]) -> Points:
    return [(size, Timing.certain(seconds)) for size, seconds in points]


times = st.floats(0, 1e6)


points = st.dictionaries(st.integers(0, 10**12), times, min_size=1, max_size=6).map(
    lambda found: sorted(found.items())
)


@given(points)
def test_interpolation_is_exact_at_the_points(points: list[tuple[int, float]]) -> None:
    assert [interpolate(timed(points), size) for size, _ in points] == [t for _, t in timed(points)]


@given(points, st.lists(st.floats(0, 2e12), min_size=2))
def test_interpolation_rises_where_the_points_do(points, sizes: list[float]) -> None:
    rising = list(
        zip((size for size, _ in points), sorted(time for _, time in points), strict=True)
    )
    found = [interpolate(timed(rising), size).mean_s for size in sorted(sizes)]
    slack = 1e-9 * max(found)
    assert all(a <= b + slack for a, b in pairwise(found))
    assert min(found) >= 0


@pytest.mark.parametrize(
    ("points", "nbytes", "expected"),
    [
        ([(10, 1.0)], 999, 1.0),
        ([(10, 1.0), (20, 2.0)], 15, 1.5),
        ([(10, 1.0), (20, 2.0)], 40, 4.0),  # beyond: by the last slope
        ([(10, 1.0), (20, 2.0)], 5, 1.0),  # nothing takes less than the smallest
        ([(10, 1.0), (20, 2.0), (30, 6.0)], 25, 4.0),
        ([(10, 2.0), (20, 1.0), (30, 3.0)], 15, 1.5),  # a measured dip is kept
        ([(10, 2.0), (20, 1.0)], 30, 1.0),  # but not continued
        ([(10, 2.0), (20, 1.0)], 0, 2.0),
    ],
)
def test_interpolation_by_hand(points, nbytes: float, expected: float) -> None:
    assert interpolate(timed(points), nbytes).mean_s == expected


def test_a_timing_is_its_percentiles_and_tenths() -> None:
    eleven = Timing.of([float(n) for n in range(11)])
    assert (eleven.mean_s, eleven.p10_s, eleven.p90_s, eleven.samples) == (5.0, 1.0, 9.0, 11)
    tenths = [1.0] * 3 + [5 / 3] + [2.0] * 2 + [7 / 3] + [3.0] * 3
    assert list(Timing.of([3.0, 1.0, 2.0] * 10).tenths) == pytest.approx(tenths)


@given(st.lists(times, min_size=1, max_size=40).map(lambda found: found * 10))
def test_tenths_are_equally_likely_and_ascend(samples: list[float]) -> None:
    tenths = Timing.of(samples).tenths
    assert list(tenths) == pytest.approx(sorted(tenths))
    assert sum(tenths) / 10 == pytest.approx(sum(samples) / len(samples))


@given(points, st.integers(0, 10**13))
def test_what_lies_between_has_the_spread_of_the_nearest(points, nbytes: int) -> None:
    spread = [(size, Timing.of([time, 2 * time])) for size, time in points]
    timing = interpolate(spread, nbytes)
    low, high = timing.tenths[0], timing.tenths[-1]
    assert high == pytest.approx(2 * low)
