"""Lowering as a whole: what ranks hold, run and have in common."""

from __future__ import annotations

import pytest

from simulator import load, lower

BLOCK = (64 * 256 + 256 + 256 * 64 + 64) * 8  # fp64
SMALL = ["workload.model=mlp", "workload.layers=4", "workload.hidden=64", "workload.dtype=fp64"]


def test_a_rank_holds_its_stage_and_as_many_gradients() -> None:
    experiment = load(None, [*SMALL, "parallel.pipeline=2", "parallel.data=2"])
    program = lower(experiment)
    assert program.num_stages == 2
    assert program.resident == [{"parameters": 2 * BLOCK, "gradients": 2 * BLOCK}] * 4
    assert experiment.mesh.world_size == program.num_ranks == 4


def test_unequal_stages_hold_unequal_parameters() -> None:
    program = lower(load(None, [*SMALL, "parallel.pipeline=3"]))
    # the first block's input needs no gradient: it is the cheapest, so it takes another
    assert [r["parameters"] // BLOCK for r in program.resident] == [2, 1, 1]
    ranges = [{i.task.layers for i in rank if i.task.op.value == "F"} for rank in program.ranks]
    assert ranges == [{(0, 2)}, {(2, 3)}, {(3, 5)}]


def test_replicas_run_the_same_passes() -> None:
    program = lower(load(None, [*SMALL, "parallel.pipeline=2", "parallel.data=2"]))
    labels = [[i.label for i in rank] for rank in program.ranks]
    assert labels[0] == labels[2] != labels[1] == labels[3]


@pytest.mark.parametrize("schedule", ["naive", "gpipe", "1f1b"])
def test_lowering_is_deterministic(schedule: str) -> None:
    plan = load(None, ["parallel.data=2", f"parallel.schedule={schedule}"])
    assert lower(plan).hash() == lower(plan).hash()
