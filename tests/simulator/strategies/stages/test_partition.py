"""Stages are as good as any: against brute force, and by hand."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.strategies.stages.partition import split_stages
from simulator.workloads.layer import Layer, Matmul


def layer(cost: int = 0, parameters: int = 0, starts: bool = True) -> Layer:
    matmul = Matmul(1, 1, cost)
    return Layer("x", shapes=((parameters,),), matmuls=(matmul,), starts_block=starts)


def largest(costs: list[int], ranges: list[tuple[int, int]]) -> int:
    return max(sum(costs[a:b]) for a, b in ranges)


@given(
    st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=9),
    st.integers(1, 9),
)
def test_stages_are_as_good_as_any(chain: list[tuple[int, bool]], num_stages: int) -> None:
    layers = [layer(cost, starts=starts) for cost, starts in chain]
    costs = [cost for cost, _ in chain]
    places = [index for index, (_, starts) in enumerate(chain) if starts and index > 0]
    if num_stages > len(places) + 1:
        with pytest.raises(ValueError, match=f"{num_stages} stages for {len(places) + 1} blocks"):
            split_stages(layers, num_stages)
        return
    ranges = split_stages(layers, num_stages)
    assert len(ranges) == num_stages
    assert [ranges[0][0], *(end for _, end in ranges)] == [
        0,
        *(a for a, _ in ranges[1:]),
        len(costs),
    ]
    assert all(first < last for first, last in ranges)
    assert {first for first, _ in ranges[1:]} <= set(places)
    best = min(
        largest(costs, list(pairwise([0, *cuts, len(costs)])))
        for cuts in combinations(places, num_stages - 1)
    )
    assert largest(costs, ranges) == best


@pytest.mark.parametrize(
    ("costs", "stages", "expected"),
    [
        ([1] * 8, 4, [(0, 2), (2, 4), (4, 6), (6, 8)]),
        ([1] * 6, 4, [(0, 1), (1, 2), (2, 4), (4, 6)]),
        ([1, 1, 1, 1, 10], 3, [(0, 2), (2, 4), (4, 5)]),
        ([9, 1, 1], 2, [(0, 1), (1, 3)]),
        ([1, 1, 9], 2, [(0, 2), (2, 3)]),
        ([5], 1, [(0, 1)]),
    ],
)
def test_stages_by_hand(costs: list[int], stages: int, expected: list[tuple[int, int]]) -> None:
    assert split_stages([layer(cost) for cost in costs], stages) == expected


@pytest.mark.parametrize(
    ("split", "expected"), [([1, 2], [(0, 2), (2, 5)]), ([2, 1], [(0, 3), (3, 5)])]
)
def test_a_given_split_counts_blocks(split: list[int], expected: list[tuple[int, int]]) -> None:
    layers = [layer(1, starts=starts) for starts in (True, False, True, True, False)]
    assert split_stages(layers, 2, split) == expected


@pytest.mark.parametrize("split", [[1, 1], [3], [3, 0], [1, 1, 1], [2, 2]])
def test_a_split_into_other_numbers_is_refused(split: list[int]) -> None:
    layers = [layer(1) for _ in range(3)]
    with pytest.raises(ValueError, match="2 numbers from 1 that add up to the 3 blocks"):
        split_stages(layers, 2, split)


def test_given_seconds_win_over_flops() -> None:
    layers = [
        Layer("x", seconds=(seconds, 0.0, 0.0), matmuls=(Matmul(1, 1, depth),))
        for seconds, depth in [(1.0, 9), (1.0, 1), (2.0, 1)]
    ]
    assert split_stages(layers, 2) == [(0, 2), (2, 3)]
