"""Speeds of ranks are given in one of two ways, and kept in one."""

from __future__ import annotations

import pytest

from simulator.experiment.cluster_choice import ClusterChoice
from simulator.experiment.section import ExperimentError

PAIRS = ((0, 1.0), (1, 2.0))


@pytest.mark.parametrize("given", [{"1": 2, 0: 1}, [1, 2], (1.0, 2.0), PAIRS, [[1, 2], [0, 1]]])
def test_a_table_and_a_list_mean_the_same(given: object) -> None:
    choice = ClusterChoice(slowdown=given)
    assert choice.slowdown == PAIRS
    assert ClusterChoice(**choice.model_dump(exclude_unset=True)) == choice
    assert hash(choice) == hash(ClusterChoice(slowdown=[1, 2]))


@pytest.mark.parametrize(
    "given",
    [
        *(3, [0], [float("inf")], {"a": 1}, {-1: 2}, [[1, 2], [1, 3]], "x"),
        *("12", ["2"], {"1": "2"}, [True, 2], {True: 2}, [[1.7, 2]], [[0, 1, 2]]),
    ],
)
def test_what_are_no_factors_is_refused(given: object) -> None:
    with pytest.raises(ExperimentError, match=r"cluster\.slowdown = .*: allowed: a factor above 0"):
        ClusterChoice(slowdown=given)


def test_ranks_are_even_unless_something_is_said() -> None:
    assert ClusterChoice(preset="laptop").is_even
    assert not ClusterChoice(slowdown=[2]).is_even
    assert not ClusterChoice(jitter="lognormal").is_even
