"""Both ends of a pipeline have tied weights, sum their gradients, and count them once."""

from __future__ import annotations

import pytest

from simulator import load
from simulator.analysis.contents import model_parameters
from simulator.engine.rank_groups import groups_of
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import experiment
from simulator.program.operations import Op
from simulator.strategies.gradients.tied import tied_ends
from simulator.strategies.lowering import lower

TINY = {"model": "llama", "layers": 4, "hidden": 32, "heads": 4, "tie_embeddings": True}
EMBEDDING = 256 * 32


def make(**keys):
    return experiment(**{**TINY, "microbatches": 4, **keys})


def exchanges(program, rank):
    return [i.task for i in program.ranks[rank] if i.task.mnemonic == "REDUCE_TIED"]


@pytest.mark.parametrize(
    ("keys", "ends"),
    [
        ({}, None),
        ({"pipeline": 4}, (0, 3)),
        ({"pipeline": 2, "virtual_stages": 2, "schedule": "interleaved-1f1b"}, (0, 1)),
        ({"pipeline": 4, "tie_embeddings": False}, None),
    ],
)
def test_the_ends_are_where_the_schedule_places_them(keys, ends) -> None:
    assert tied_ends(make(**keys)) == ends


@pytest.mark.parametrize("data", [1, 2])
def test_both_ends_and_their_replicas_sum_in_one_all_reduce(data) -> None:
    plan = make(pipeline=4, data=data)
    program, mesh = lower(plan), plan.mesh
    for rank in range(mesh.world_size):
        found = exchanges(program, rank)
        if mesh.coordinate(rank)["pipeline"] in (1, 2):
            assert not found
            continue
        (task,) = found
        assert task.op is Op.ALL_REDUCE
        assert task.nbytes == EMBEDDING * 4
        pipeline = mesh.group(0, "pipeline")
        assert task.group == tuple(
            sorted((*mesh.group(pipeline[0], "data"), *mesh.group(pipeline[-1], "data")))
        )
        assert task.group in {tuple(row) for g in groups_of(plan) for row in g.ranks.tolist()}


def test_shards_are_summed_over_the_two_ranks_that_have_them() -> None:
    plan = make(pipeline=2, data=2, zero=1, tensor=2)
    program = lower(plan)
    groups = {task.group for rank in range(8) for task in exchanges(program, rank)}
    assert groups == {(0, 2), (1, 3), (4, 6), (5, 7)}
    assert {task.nbytes for task in exchanges(program, 0)} == {EMBEDDING * 4 // 2 // 2}
    assert groups <= {tuple(row) for g in groups_of(plan) for row in g.ranks.tolist()}


def test_weights_in_one_stage_are_there_once() -> None:
    plan = make()
    program = lower(plan)
    assert not exchanges(program, 0)
    assert model_parameters(plan) == model_parameters(make(pipeline=4))
    assert model_parameters(plan) == model_parameters(make(tie_embeddings=False)) - EMBEDDING
    held = sum(bucket.nbytes for bucket in program.buckets[0]) // 4
    assert held == model_parameters(plan)


def test_the_exchange_comes_behind_everything_else_of_the_backward_pass() -> None:
    for rank in lower(make(pipeline=2)).ranks:
        *_, before, step = [i.task for i in rank if i.task.op not in (Op.SEND, Op.RECV)]
        assert (before.mnemonic, step.op) == ("REDUCE_TIED", Op.OPTIMIZER_STEP)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"pipeline": 2, "virtual_stages": 2, "schedule": "zb-v"},
            "schedule = 'zb-v': gives the first and the last stage to one rank",
        ),
        ({"pipeline": 2, "schedule": "pipedream"}, "schedule = 'pipedream': updates the first"),
        (
            {"data": 2, "data_style": "local-sgd", "sync_period": 2, "horizon": 4},
            "data_style = 'local-sgd': with workload.tie_embeddings = true gradients are summed",
        ),
        ({"model": "bert"}, "only for workload.model = 'gpt' or 'llama'"),
    ],
)
def test_copies_that_could_not_stay_equal_are_refused(keys, message) -> None:
    with pytest.raises(ExperimentError) as error:
        make(**keys)
    assert message in str(error.value)


def test_the_published_gpt_2_is_tied() -> None:
    assert load(None, ["workload.size=gpt-2"]).workload.tie_embeddings
