"""DiLoCo: where the outer step stands, what it takes and holds, and what is refused."""

from __future__ import annotations

import pytest

from simulator import ExperimentError, load, lower, predict
from simulator.cluster.resolve import resolve
from simulator.engine.costs import costs_of
from simulator.program.operations import Op
from small_buckets import BLOCK, BLOCKS, SMALL

DILOCO = [*SMALL, "data_style=diloco", "microbatches=1"]
ONE = ["parallel.bucket_mb=100", "preset=dgx-a100-80gb", "horizon=4"]


def test_the_outer_step_follows_the_average() -> None:
    """Written by hand."""
    program = lower(load(None, [*DILOCO, *ONE, "data=2", "sync_period=2"]))
    labels = "0F0 0B0 0STEP s1:0F0 s1:0B0 s1:0STEP s1:0AVERAGE s1:0OUTER"
    labels += " s2:0F0 s2:0B0 s2:0STEP s3:0F0 s3:0B0 s3:0STEP s3:0AVERAGE s3:0OUTER"
    for rank in program.ranks:
        assert [i.label for i in rank] == labels.split()
        for i in rank:
            if i.task.op is Op.OUTER_STEP:
                assert {o.task.name for o in i.after} == {"AVERAGE"}
                assert i.task.coefficients == (0.7, 0.9)


def test_one_replica_has_nothing_to_average() -> None:
    program = lower(load(None, [*DILOCO, *ONE, "data=1", "sync_period=4"]))
    assert [i.label for i in program.ranks[0]][-2:] == ["s3:0STEP", "s3:0OUTER"]


def test_a_period_takes_its_steps_an_all_reduce_and_the_outer_step() -> None:
    experiment = load(None, [*DILOCO, *ONE, "data=8", "sync_period=2"])
    alone = predict(load(None, [*SMALL, *ONE, "microbatches=1", "data=1"])).iteration_time_s
    program = lower(experiment)
    costs = costs_of(program, experiment, resolve(experiment))
    ends = {i.task.name: costs.seconds(i) for i in program.ranks[0]}
    assert ends["OUTER"] > 0
    expected = alone + 2 * (ends["AVERAGE"] + ends["OUTER"])
    assert predict(experiment).iteration_time_s == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("momentum", "copies"), [("0.9", 2), ("0", 1)])
def test_every_replica_holds_the_outer_state(momentum: str, copies: int) -> None:
    settings = [*DILOCO, *ONE, "data=2", "sync_period=2", f"outer_momentum={momentum}"]
    program = lower(load(None, settings))
    assert [held["optimizer"] for held in program.resident] == [copies * BLOCK * BLOCKS] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "'diloco': needs parallel.sync_period, which is not set"),
        (["sync_period=3"], "allowed: what divides run.horizon = 4: 1, 2, 4"),
        (["sync_period=2", "local_after=2"], "only for parallel.data_style = 'local-sgd', not"),
        (["sync_period=2", "zero=2"], "parallel.zero = 2: replicas share what is equal"),
        (["sync_period=2", "outer_momentum=1"], "parallel.outer_momentum = 1"),
        (["sync_period=2", "outer_learning_rate=0"], "parallel.outer_learning_rate = 0"),
        (
            ["data_style=local-sgd", "sync_period=2", "outer_momentum=0.5"],
            "parallel.outer_momentum = 0.5: only for parallel.data_style = 'diloco'",
        ),
        (
            ["data_style=all-reduce", "outer_learning_rate=0.5"],
            "parallel.outer_learning_rate = 0.5: only for parallel.data_style = 'diloco'",
        ),
    ],
)
def test_what_does_not_compose_is_refused(settings: list[str], message: str) -> None:
    keys = ["model=mlp", "pipeline=1", "data=2", "data_style=diloco", "horizon=4", *settings]
    with pytest.raises(ExperimentError) as error:
        load(None, keys)
    assert message in str(error.value)
