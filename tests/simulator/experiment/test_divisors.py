"""The nearest divisor, and refusals that name it in no time however large the sizes are."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import ExperimentError, load
from simulator.experiment.divisors import nearest_divisor


@given(st.integers(1, 5000), st.integers(1, 6000), st.integers(1, 3))
def test_it_is_that_of_trying_all(number: int, wanted: int, least: int) -> None:
    fits = [n for n in range(least, number + 1) if number % n == 0]
    if fits:
        expected = min(fits, key=lambda n: (abs(n - wanted), n))
        assert nearest_divisor(number, wanted, least) == expected


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            ["workload.model=mlp", "workload.hidden=1000000000", "parallel.tensor=3"],
            "parallel.tensor = 3: does not divide workload.hidden = 1000000000; "
            "nearest that works: 2",
        ),
        (
            ["workload.hidden=1000000007", "workload.heads=1000"],
            "workload.heads = 1000: must divide workload.hidden = 1000000007; nearest that does: 1",
        ),
        (
            ["parallel.context=60000", "workload.sequence=2000000014"],
            "parallel.context = 60000: does not divide workload.sequence ÷ 2 (two chunks a rank) "
            "= 1000000007; nearest that works: 1",
        ),
    ],
)
def test_large_sizes_are_refused_in_few_steps(keys: list[str], message: str) -> None:
    with pytest.raises(ExperimentError) as error:
        counted(lambda: load(None, keys), at_most=500_000)
    assert str(error.value) == message


def counted(call: Callable[[], object], at_most: int) -> object:
    """Run it; fail as soon as it has taken more than so many lines of code."""
    taken = 0

    def trace(*_: object) -> object:
        nonlocal taken
        taken += 1
        if taken > at_most:
            pytest.fail(f"takes more than {at_most} lines")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        return call()
    finally:
        sys.settrace(before)
