"""The nearest divisor, and refusals that name it in no time however large the sizes are."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import ExperimentError, load
from simulator.experiment.hints import divisors_near, multiples_near


@given(st.integers(1, 5000), st.integers(1, 6000), st.integers(1, 3))
def test_divisors_are_those_of_trying_all(number: int, wanted: int, least: int) -> None:
    fits = [n for n in range(least, number + 1) if number % n == 0]
    found = [n for n in divisors_near(number, wanted) if n >= least]
    if fits and (least == 1 or number <= 2 * wanted):
        assert found[0] == min(fits, key=lambda n: (abs(n - wanted), n))
    assert {*found} <= {*fits}


@given(st.integers(1, 100), st.integers(1, 6000))
def test_multiples_are_the_nearest(number: int, wanted: int) -> None:
    found = multiples_near(number, wanted)
    assert all(n > 0 and n % number == 0 for n in found)
    assert found == sorted(found, key=lambda n: (abs(n - wanted), n))
    assert abs(found[0] - wanted) <= max(number / 2, number - wanted)


SEQUENCE_PARALLEL = [
    "workload.sequence=1001",
    "workload.heads=8",
    "parallel.tensor=8",
    "parallel.sequence_parallel=true",
    "parallel.pipeline=1",
    "parallel.microbatches=1",
]


@pytest.mark.parametrize(
    ("keys", "hint"),
    [
        (SEQUENCE_PARALLEL, "the tokens of a microbatch = 4004; nearest that works: 4"),
        (
            [*SEQUENCE_PARALLEL, "workload.global_batch=1"],
            "the tokens of a microbatch = 1001; no other parallel.tensor works with the rest of "
            "the experiment",
        ),
        (
            ["workload.size=bert-base", "parallel.tensor=5"],
            "workload.hidden = 768; nearest that works: 4",
        ),
        (
            ["workload.size=bert-base", "parallel.tensor=5", "parallel.sequence_parallel=true"],
            "workload.hidden = 768; nearest that works: 4",
        ),
        (  # 1 would be refused for the style that is given
            ["workload.sequence=127", "parallel.context=2", "parallel.context_style=ring"],
            "is odd; no other parallel.context works with the rest of the experiment",
        ),
        (
            ["workload.sequence=127", "parallel.context=2"],
            "is odd; nearest that works: 1",
        ),
        (  # 5 heads would not be divisible over 4 ranks
            ["workload.hidden=120", "workload.heads=7", "parallel.tensor=4"],
            "must divide workload.hidden = 120; nearest that works: 8",
        ),
        (  # 2 samples a microbatch are 126 tokens, which 4 ranks cannot share
            [
                *("workload.sequence=63", "parallel.tensor=4", "parallel.sequence_parallel=true"),
                "workload.global_batch=9",
            ],
            "must be a multiple of data × microbatches = 1 × 4 = 4; nearest that works: 16",
        ),
    ],
    ids=str,
)
def test_what_is_suggested_passes_every_check(keys: list[str], hint: str) -> None:
    with pytest.raises(ExperimentError) as error:
        load(None, keys)
    found = str(error.value)
    assert found.endswith(hint)
    if (value := found.rpartition("nearest that works: ")[2]).isdigit():
        key = found.partition(" = ")[0]
        load(None, [*keys, f"{key}={value}"])
    if "(padded" in found:
        load(None, [*keys, f"workload.vocab={found.split('vocab = ')[2].split()[0]}"])


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
            "workload.heads = 1000: must divide workload.hidden = 1000000007; "
            "nearest that works: 1",
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
