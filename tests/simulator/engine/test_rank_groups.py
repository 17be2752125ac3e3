"""The groups of a plan are those that its program names."""

from __future__ import annotations

import numpy as np
import pytest

from simulator import load, lower
from simulator.cluster.catalogue import load_preset
from simulator.cluster.placement import Placement
from simulator.engine.rank_groups import Groups, groups_of
from simulator.program.operations import COLLECTIVES, MESSAGES


@pytest.mark.parametrize(
    "parallel",
    [
        ("data=4", "pipeline=2", "tensor=2", "sequence_parallel=true"),
        ("data=3", "context=2", "tensor=4", "pipeline=1", "zero=3", "sequence_parallel=true"),
        ("data=8", "pipeline=2", "zero=1", "zero_group=4"),
        ("data=2", "tensor=2", "pipeline=2", "context=2", "zero=1", "zero_group=2",
         'rank_order=["tensor", "context", "data", "pipeline", "expert"]'),
    ],
)  # fmt: skip
def test_every_group_of_a_program_is_there(parallel: tuple[str, ...]) -> None:
    model = ["workload.layers=4", "workload.hidden=64", "workload.clip_norm=1"]
    experiment = load(
        None, [*model, "cluster.preset=dgx-h100", *(f"parallel.{setting}" for setting in parallel)]
    )
    check_groups(experiment)


def test_every_group_of_a_program_with_experts_is_there() -> None:
    for sizes in (("data=2",), ("data=4", "expert_inside_data=true")):
        parallel = ("expert=2", "tensor=2", "pipeline=1", "zero=1", *sizes)
        experiment = load(
            None,
            ["workload.model=moe-gpt", "workload.layers=2", "workload.hidden=64",
             "workload.experts=4", "workload.clip_norm=1", "cluster.preset=dgx-h100",
             *(f"parallel.{setting}" for setting in parallel)],
        )  # fmt: skip
        check_groups(experiment)


@pytest.mark.parametrize(
    "parallel",
    [("data=2", "tensor=4", "zero=1"), ("pipeline=2", "tensor=4", "sequence_parallel=true")],
)
def test_groups_that_share_heads_of_keys_are_there(parallel: tuple[str, ...]) -> None:
    model = ["model=llama", "kv_heads=2", "heads=8", "layers=2", "hidden=64", "clip_norm=1"]
    settings = [f"workload.{key}" for key in model] + [f"parallel.{key}" for key in parallel]
    check_groups(load(None, [*settings, "cluster.preset=dgx-h100"]))


def check_groups(experiment) -> None:
    groups = groups_of(experiment)
    for divided in groups:
        ranks, row, place = divided.ranks, divided.row, divided.place
        assert np.sort(ranks.ravel()).tolist() == [*range(experiment.world_size)]
        assert (np.diff(ranks, axis=1) > 0).all()
        assert (ranks[row, place] == np.arange(experiment.world_size)).all()
    known = {tuple(members) for divided in groups for members in divided.ranks.tolist()}
    pipelines = next((divided for divided in groups if divided.order == "pipeline"), None)
    for instruction in lower(experiment):
        task = instruction.task
        if task.op in COLLECTIVES and len(task.group) > 1:
            assert task.group in known
        if task.op in MESSAGES:
            assert pipelines is not None
            assert pipelines.row[task.peer] == pipelines.row[instruction.rank]


def test_members_of_a_unit_are_counted() -> None:
    """Four of the ranks 0, 2, 4, 6, 8, 10 are on the first node of eight."""
    placement = Placement(load_preset("dgx-h100").resized(nodes=2).topology, np.arange(12))
    divided = Groups(np.arange(12).reshape(6, 2).T.copy())
    together = divided.together(placement)
    assert together[4].tolist() == [4] * 8 + [2] * 4
    assert together[0].tolist() == [1] * 12
    assert together[-1].tolist() == [6] * 12


def test_servers_are_in_a_group_with_every_set_of_replicas() -> None:
    keys = ["data=3", "pipeline=2", "data_style=parameter-server", "servers=2"]
    groups = groups_of(load(None, keys))
    pipelines, *served = groups
    assert pipelines.row.tolist() == [0, 0, 1, 1, 2, 2, -1, -1]
    assert [divided.ranks.tolist() for divided in served] == [
        [[0, 2, 4, 6], [1, 3, 5, 6]],
        [[0, 2, 4, 7], [1, 3, 5, 7]],
    ]
    assert served[0].row.tolist() == [0, 1] * 3 + [1, -1]
