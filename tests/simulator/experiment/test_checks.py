"""Batches, expert ranks and devices that contradict each other are refused."""

from __future__ import annotations

from typing import Any

import pytest

from simulator import ExperimentError, load, lower, predict
from simulator.experiment_file import experiment, with_overrides

MOE = {"model": "moe-gpt", "layers": 2, "experts": 4}


def refusal(**keys: Any) -> str:
    with pytest.raises(ExperimentError) as error:
        experiment(**keys)
    return str(error.value)


@pytest.mark.parametrize(
    ("keys", "microbatches", "batch"),
    [
        ({"microbatch_size": 2}, 1, 2),
        ({"microbatch_size": 2, "microbatches": 3}, 3, 6),
        ({"microbatch_size": 2, "global_batch": 12}, 6, 12),
        ({"microbatch_size": 2, "global_batch": 12, "data": 3}, 2, 12),
        ({"microbatch_size": 2, "global_batch": 12, "microbatches": 6}, 6, 12),
        ({"microbatch_size": 3, "model": "unit"}, 1, 3),
        ({"micro_batch_size": 1, "global_batch_size": 8}, 8, 8),
        ({**MOE, "microbatch_size": 2, "global_batch": 16, "data": 2, "expert": 2}, 2, 16),
    ],
    ids=str,
)
def test_size_and_number_of_microbatches(
    keys: dict[str, Any], microbatches: int, batch: int
) -> None:
    found = experiment(**keys)
    assert (found.parallel.microbatches, found.global_batch) == (microbatches, batch)
    size = keys.get("microbatch_size", 1)
    assert found.microbatch_size == found.parallel.microbatch_size == size


def test_a_size_gives_the_program_of_its_number() -> None:
    by_size = experiment(pipeline=2, microbatch_size=2, global_batch=12)
    by_number = experiment(pipeline=2, microbatches=6, global_batch=12)
    assert lower(by_size).hash() == lower(by_number).hash()


def test_another_batch_has_another_number_of_microbatches() -> None:
    plan = load(None, ["parallel.microbatch_size=2", "workload.global_batch=16"])
    assert plan.parallel.microbatches == 8
    assert with_overrides(plan, ["workload.global_batch=32"]).parallel.microbatches == 16
    longer = plan.workload.model_copy(update={"global_batch": 64})
    assert plan.model_copy(update={"workload": longer}).parallel.microbatches == 32
    assert load(None, ["parallel.microbatch_size=2"]).global_batch == 8  # of the built-in four


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"microbatch_size": 3, "global_batch": 8, "data": 2},
            "workload.global_batch = 8: must be a multiple of data × microbatch_size = 2 × 3 = 6; "
            "nearest that works: 6",
        ),
        (
            {"microbatch_size": 3, "global_batch": 8, "microbatches": 4},
            "parallel.microbatch_size = 3: workload.global_batch ÷ (data × microbatches) = 8 ÷ 4 "
            "= 2; give two of the three",
        ),
        (
            {"microbatch_size": 16, "global_batch": 8},
            "workload.global_batch = 8: must be a multiple of data × microbatch_size = 1 × 16 = "
            "16; nearest that works: 16",
        ),
        (
            {"microbatch_size": 1, "global_batch": 100000},
            "parallel.microbatch_size = 1: 100000 microbatches; allowed: 65536 or fewer",
        ),
    ],
    ids=str,
)
def test_sizes_that_cannot_be(keys: dict[str, Any], message: str) -> None:
    assert refusal(**keys) == message


def test_expert_ranks_multiply_the_ranks_or_are_inside_data() -> None:
    beside = experiment(**MOE, data=2, expert=2, global_batch=16)
    inside = experiment(**MOE, data=4, expert=2, global_batch=16, expert_inside_data=True)
    assert beside.world_size == inside.world_size == 4
    assert beside.mesh.degrees == inside.mesh.degrees
    assert beside.microbatch_size == inside.microbatch_size
    assert lower(beside).hash() == lower(inside).hash()
    one, other = predict(beside), predict(inside)
    assert one.timeline.iteration_time == other.timeline.iteration_time
    assert any("expert = 2 multiplies the number of ranks: 4" in note for note in one.notes)
    assert any("expert = 2 is inside parallel.data = 4" in note for note in other.notes)
    sharded = {"data": 4, "expert": 2, "expert_inside_data": True, "zero": 1}
    assert experiment(**MOE, **sharded).parallel.shards == 4


def test_expert_ranks_that_are_no_share_of_data() -> None:
    assert refusal(**MOE, data=3, expert=2, expert_inside_data=True) == (
        "parallel.data = 3: must be a multiple of parallel.expert = 2 with "
        "parallel.expert_inside_data = true; nearest that works: 2"
    )
    assert refusal(**MOE, data=1, expert=4, expert_inside_data=True).endswith(
        "nearest that works: 4"
    )
    assert "data × microbatches = 4 × 1 = 4" in refusal(
        **MOE, data=4, expert=2, expert_inside_data=True, global_batch=6
    )
