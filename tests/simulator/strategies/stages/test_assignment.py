"""Ranks get their stages: the neighbours of each, and the weights of its losses."""

from __future__ import annotations

from typing import Any

import pytest

from simulator import load, lower
from simulator.program.operations import FORWARDS
from simulator.strategies.lowering import apply_chain, begin

PLANS: list[tuple[dict[str, Any], int]] = [
    ({"schedule": "1f1b", "pipeline": 2, "microbatches": 6}, 6),
    ({"schedule": "pipedream", "pipeline": 3, "microbatches": 4}, 1),
    ({"schedule": "pipedream", "pipeline": 3, "microbatches": 4, "horizon": 2}, 1),
    ({"schedule": "pipedream-2bw", "pipeline": 2, "microbatches": 6}, 2),
    ({"schedule": "pipedream-2bw", "pipeline": 2, "microbatches": 2}, 2),
    ({"model": "unit", "pipeline": 2, "microbatches": 3}, 3),  # nothing is updated
    ({"pipeline": 1, "microbatches": 3, "horizon": 2, "recompute": "full"}, 3),
    ({"pipeline": 1, "data": 2, "context": 2, "microbatches": 3}, 2 * 2 * 3),
    ({"pipeline": 1, "expert": 2, "model": "moe-gpt", "microbatches": 3}, 2 * 3),
    ({"pipeline": 1, "data": 2, "data_style": "parameter-server", "microbatches": 3}, 2 * 3),
    ({"pipeline": 1, "data": 2, "data_style": "asynchronous", "microbatches": 3}, 3),
]


@pytest.mark.parametrize(("keys", "terms"), PLANS, ids=str)
def test_the_weight_of_a_loss_is_its_share_of_all_terms_of_an_update(
    keys: dict[str, Any], terms: int
) -> None:
    program = lower(load(None, [f"{key}={value}" for key, value in keys.items()]))
    (weight,) = {i.task.loss_weight for i in program if i.task.op in FORWARDS}
    assert weight == pytest.approx(1 / terms)


def test_neighbours_are_on_the_same_pipeline() -> None:
    keys = ["pipeline=2", "data=2", "virtual_stages=2", "schedule=interleaved-1f1b"]
    lowered = apply_chain(begin(load(None, [*keys, "workload.layers=4"])))
    stages = {rank: lowered.stages[rank] for rank in lowered.ranks}
    assert [sorted(mine) for mine in stages.values()] == [[0, 2], [1, 3], [0, 2], [1, 3]]
    assert [stages[rank][index].previous_rank for rank, index in ((0, 2), (2, 2))] == [1, 3]
    assert [stages[2][0].previous_rank, stages[2][0].next_rank] == [None, 3]
    assert [stages[3][3].previous_rank, stages[3][3].next_rank] == [2, None]
