"""However an experiment is made, it passes the same checks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import Experiment, ExperimentError, parse
from simulator.experiment.cluster_choice import ClusterChoice
from simulator.experiment.parallel import Parallel
from simulator.experiment.run import Run
from simulator.experiment.section import Section
from simulator.experiment.workload import Workload
from simulator.workloads.describe import describe_whole

SECTIONS: dict[str, type[Section]] = {
    "workload": Workload,
    "parallel": Parallel,
    "cluster": ClusterChoice,
    "run": Run,
}

Tables = dict[str, dict[str, Any]]

REFUSED: list[Tables] = [
    {"parallel": {"tensor": 3}},
    {"parallel": {"schedule": "nothing"}},
    {"parallel": {"split": [1, 1, 2], "pipeline": 2}},
    {"parallel": {"rank_order": ["data", "pipeline"]}},
    {"parallel": {"zero": 1}},
    {"parallel": {"expert": 2}},
    {"parallel": {"context_style": "ring"}},
    {"parallel": {"pipeline": 16}},
    {"parallel": {"memory_limit": 3}},
    {"workload": {"model": "mlp"}, "parallel": {"recompute": "selective"}},
    {"workload": {"global_batch": 7}, "parallel": {"microbatches": 4}},
    {"workload": {"hidden": 100, "heads": 3}},
    {"workload": {"loss_scale": 2.0}},
    {"workload": {"model": "alexnet", "image_size": 20}},
    {"workload": {"model": "moe-gpt", "top_k": 9}},
    {"cluster": {"preset": "laptop", "file": "x.toml"}},
    {"run": {"backend": "nccl"}},
    {"parallel": {"data": "two"}},
    {"parallel": {"data": 0}},
    {"workload": {"dtype": "int8"}},
    {"run": {"stages": 2}},
]


def refusal(made: Any) -> str:
    with pytest.raises(ExperimentError) as error:
        made()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("tables", REFUSED, ids=str)
def test_constructor_copy_and_parse_give_the_same_refusal(tables: Tables) -> None:
    expected = refusal(lambda: parse(tables))

    def by_sections() -> Experiment:
        return Experiment(**{name: SECTIONS[name](**keys) for name, keys in tables.items()})

    def by_copies() -> Experiment:
        plain = Experiment()
        changed = {
            name: getattr(plain, name).model_copy(update=keys) for name, keys in tables.items()
        }
        return plain.model_copy(update=changed)

    assert refusal(by_sections) == refusal(by_copies) == expected
    assert refusal(lambda: Experiment(**tables)) == expected
    assert refusal(lambda: Experiment().model_copy(update=tables)) == expected


def test_a_copy_is_what_a_new_one_would_be() -> None:
    plan = parse({"workload": {"model": "mlp"}, "parallel": {"pipeline": 2}})
    wider = plan.model_copy(update={"parallel": plan.parallel.model_copy(update={"data": 2})})
    assert wider == parse({"workload": {"model": "mlp"}, "parallel": {"pipeline": 2, "data": 2}})
    assert wider.parallel.model_fields_set == {"pipeline", "data"}
    assert wider.world_size == wider.mesh.world_size == 4
    assert plan.model_copy() == plan


def test_a_key_that_python_knows_is_refused_as_any_other() -> None:
    assert refusal(lambda: parse({"self": 1})).startswith("self: unknown key")
    assert refusal(lambda: parse({"run": {"self": 1}})).startswith("run.self: unknown key")


@pytest.mark.parametrize(
    "plan",
    [
        {"tensor": 2, "data": 2, "sequence_parallel": True, "zero": 3, "zero_group": 2},
        {"context": 2, "context_style": "ulysses"},
        {"data": 65536, "context": 2},
        {"pipeline": 2, "split": [3, 1]},
    ],
    ids=str,
)
def test_the_whole_model_of_a_split_one_can_be_described(plan: dict[str, Any]) -> None:
    whole = describe_whole(parse({"parallel": plan}))
    assert whole == describe_whole(parse({}))


def test_world_size_and_batches() -> None:
    plan = {"data": 3, "pipeline": 2, "microbatches": 5}
    experiment = parse({"parallel": plan})
    assert experiment.world_size == 6
    assert (experiment.global_batch, experiment.microbatch_size) == (60, 4)
    given_batch = parse({"parallel": plan, "workload": {"global_batch": 30}})
    assert (given_batch.global_batch, given_batch.microbatch_size) == (30, 2)
    unit = parse({"parallel": plan, "workload": {"model": "unit"}})
    assert (unit.global_batch, unit.microbatch_size) == (15, 1)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 200))
def test_a_batch_is_whole_or_refused_with_the_nearest_one(data: int, m: int, batch: int) -> None:
    plan = {"parallel": {"data": data, "microbatches": m}, "workload": {"global_batch": batch}}
    if batch % (data * m) == 0:
        assert parse(plan).microbatch_size * data * m == batch
        return
    with pytest.raises(ExperimentError) as error:
        parse(plan)
    nearest = int(str(error.value).rpartition("nearest that works: ")[2])
    assert nearest > 0
    assert nearest % (data * m) == 0
    assert all(abs(nearest - batch) <= abs(k * data * m - batch) for k in range(1, 201))


def test_an_experiment_that_sets_no_key_is_noted() -> None:
    for empty in ({}, {"workload": {}, "run": {}}):
        (note,) = parse(empty).notes
        assert note == "the experiment sets no key, so all have their defaults: gpt on one rank"
    assert parse({"run": {"seed": 1}}).notes == []
