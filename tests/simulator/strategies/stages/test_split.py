"""`parallel.split`: stages of as many blocks as the user says."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import ExperimentError, load, lower
from simulator.strategies.stages.partition import split_stages, stage_costs
from simulator.workloads.layer import Layer, Matmul

MLP = ["workload.model=mlp", "workload.layers=8", "workload.hidden=16"]


def stages(*keys: str) -> list[tuple[int, int]]:
    """Layers of every stage, by stage."""
    program = lower(load(None, [*MLP, *keys]))
    found = {(i.task.stage, i.task.layers) for i in program if i.task.op.value == "F"}
    return [layers for _, layers in sorted(found)]


def test_blocks_per_stage() -> None:
    """Eight blocks and the loss, which stays with the last."""
    assert stages("parallel.split=[3, 5]") == [(0, 3), (3, 9)]
    assert stages("parallel.split=[7, 1]") == [(0, 7), (7, 9)]
    assert stages("parallel.pipeline=3", "parallel.split=[1, 1, 6]") == [(0, 1), (1, 2), (2, 9)]


def test_a_block_of_several_layers_stays_whole() -> None:
    """gpt: the embedding is with the first block, the head with the last."""
    program = lower(load(None, ["workload.layers=4", "parallel.split=[1, 3]"]))
    assert {i.task.layers for i in program if i.task.op.value == "F"} == {(0, 3), (3, 10)}


def test_virtual_stages_are_counted_first_to_last() -> None:
    keys = ["parallel.schedule=zb-v", "parallel.virtual_stages=2", "parallel.microbatches=4"]
    assert stages(*keys, "parallel.split=[1, 2, 4, 1]") == [(0, 1), (1, 3), (3, 7), (7, 9)]


def test_a_split_that_is_the_balanced_one_changes_nothing() -> None:
    balanced = load(None, [*MLP, "parallel.pipeline=4"])
    written = load(None, [*MLP, "parallel.pipeline=4", "parallel.split=[2, 2, 2, 2]"])
    assert lower(written).hash() == lower(balanced).hash()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["parallel.split=[3, 4]"], "parallel.split = [3, 4]: 7 blocks in 2 stages; allowed: 2 n"),
        (["parallel.split=[8]"], "parallel.split = [8]: 1 numbers; allowed: one for each of"),
        (["parallel.split=[0, 8]"], "parallel.split.0 = 0: allowed: 1 or more"),
        (["parallel.split=8"], "parallel.split = 8: allowed: a list"),
        (
            ["parallel.split=[4, 4]", "parallel.virtual_stages=2", "parallel.schedule=zb-v"],
            "parallel.split = [4, 4]: 2 numbers; allowed: one for each of pipeline × "
            "virtual_stages = 4 stages",
        ),
        (
            ["parallel.virtual_stages=5", "parallel.schedule=looped-bfs"],
            "parallel.virtual_stages = 5: pipeline × virtual_stages = 10 stages, more than "
            "workload.layers = 8; nearest that works: 4",
        ),
    ],
)
def test_what_is_refused_and_why(keys: list[str], message: str) -> None:
    with pytest.raises(ExperimentError) as caught:
        lower(load(None, [*MLP, *keys]))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_many_blocks() -> None:
    chain = [Layer("x", matmuls=(Matmul(1, 1, cost % 7 + 1),)) for cost in range(300)]
    assert split_stages(chain, 300) == [(index, index + 1) for index in range(300)]
    ranges = split_stages(chain, 16)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == 300
    assert all(before[1] == after[0] for before, after in pairwise(ranges))


@given(st.lists(st.tuples(*[st.integers(0, 9)] * 3), min_size=1, max_size=8), st.data())
def test_costs_of_stages(works: list[tuple[int, int, int]], data) -> None:
    layers = [
        Layer("x", matmuls=(Matmul(1, 1, f),), recomputed=(Matmul(1, 1, i),)) for f, i, _ in works
    ]
    works = [(2 * f, 2 * (f + i), 2 * f) for f, i, _ in works]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(works) - 1)))) if len(works) > 1 else []
    ranges = list(pairwise([0, *cuts, len(works)]))
    timed = [Layer("x", seconds=work, matmuls=(Matmul(9, 9, 9),)) for work in works]
    expected = tuple(
        tuple(sum(work[part] for work in works[a:b]) for part in range(3)) for a, b in ranges
    )
    assert stage_costs(layers, ranges) == stage_costs(timed, ranges) == expected
