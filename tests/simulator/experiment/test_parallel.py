"""Degrees multiply to the ranks that train; servers come on top."""

from __future__ import annotations

import pytest

from simulator.experiment.parallel import Parallel


@pytest.mark.parametrize(
    ("plan", "trainers", "servers"),
    [
        (Parallel(), 1, 0),
        (Parallel(data=3, pipeline=2, tensor=4, context=2), 48, 0),
        (Parallel(data=4, expert=2), 8, 0),
        (Parallel(data=4, expert=2, expert_inside_data=True), 4, 0),
        (Parallel(data=3, pipeline=2, data_style="parameter-server"), 6, 1),
        (Parallel(data=3, data_style="parameter-server", servers=5), 3, 5),
    ],
)
def test_ranks_by_hand(plan: Parallel, trainers: int, servers: int) -> None:
    assert (plan.num_trainers, plan.num_servers) == (trainers, servers)
    assert plan.has_servers == (servers > 0)


def test_a_single_transform_needs_no_list() -> None:
    assert Parallel(transforms="a.b").transforms == ("a.b",)


@pytest.mark.parametrize(
    ("plan", "shards"),
    [
        (Parallel(data=4), 1),
        (Parallel(data=4, context=2, zero=1), 8),
        (Parallel(data=4, zero=3, zero_group=2), 2),
    ],
)
def test_shards_by_hand(plan: Parallel, shards: int) -> None:
    assert plan.shards == shards
    wanted = (plan.zero >= 1, plan.zero >= 2, plan.zero >= 3)
    assert (plan.shards_optimizer, plan.shards_gradients, plan.shards_parameters) == wanted
