"""Local steps: what is written where, what it takes in closed form, and what is refused."""

from __future__ import annotations

import pytest

from simulator import ExperimentError, load, lower, predict
from simulator.cluster.resolve import resolve
from simulator.engine.costs import costs_of
from simulator.program.operations import Op
from small_buckets import BLOCK, BLOCKS, SMALL

LOCAL = [*SMALL, "data_style=local-sgd"]
WHOLE = ["parallel.bucket_mb=100", "preset=dgx-a100-80gb", "microbatches=2"]


def labels(*settings: str) -> list[str]:
    program = lower(load(None, [*LOCAL, "microbatches=1", *settings]))
    rows = [[i.label for i in rank] for rank in program.ranks]
    assert all(row == rows[0] for row in rows)
    return rows[0]


def test_parameters_are_averaged_behind_the_last_step_of_a_period() -> None:
    """Written by hand: one bucket, two periods of two steps."""
    expected = "0F0 0B0 0STEP s1:0F0 s1:0B0 s1:0STEP s1:0AVERAGE"
    expected += " s2:0F0 s2:0B0 s2:0STEP s3:0F0 s3:0B0 s3:0STEP s3:0AVERAGE"
    assert labels("bucket_mb=100", "data=2", "sync_period=2", "horizon=4") == expected.split()


def test_the_steps_before_sum_gradients() -> None:
    expected = "0F0 0B0 0REDUCE_GRAD 0STEP s1:0F0 s1:0B0 s1:0STEP s1:0AVERAGE"
    found = labels("bucket_mb=100", "data=2", "sync_period=1", "local_after=1", "horizon=2")
    assert found == expected.split()


def test_each_bucket_is_used_as_soon_as_it_is_there() -> None:
    settings = [*LOCAL, "data=2", "microbatches=1", "sync_period=2", "horizon=4"]
    program = lower(load(None, settings))
    averages = [i for i in program.ranks[0] if i.task.name == "AVERAGE"]
    assert [i.task.nbytes for i in averages] == [BLOCK] * BLOCKS * 2
    assert {i.task.group for i in averages} == {(0, 1)}
    assert {i.step for i in averages} == {1, 3}
    for average in averages:
        assert {other.task.op for other in average.after} == {Op.OPTIMIZER_STEP}
    for i in program.ranks[0]:
        if i.task.op is Op.FORWARD and i.step == 2:
            (mine,) = [other for other in i.after if other.task.name == "AVERAGE"]
            assert (mine.step, mine.task.layers) == (1, i.task.layers)


def test_gradients_of_a_replica_are_summed_within_it() -> None:
    """With sequence parallelism, norms have parts of a sum on the tensor ranks of a replica."""
    keys = ["model=gpt", "layers=1", "hidden=16", "heads=2", "sequence=8", "pipeline=1", "data=2"]
    keys += ["tensor=2", "sequence_parallel=true", "data_style=local-sgd", "sync_period=1"]
    program = lower(load(None, keys))
    groups = {
        name: {i.task.group for i in program if i.task.name == name}
        for name in ("REDUCE_GRAD", "AVERAGE")
    }
    assert groups["REDUCE_GRAD"] == {(0, 1), (2, 3)}
    assert groups["AVERAGE"] == {(0, 2), (1, 3)}


@pytest.mark.parametrize("replicas", [4, 16, 64])
def test_a_period_takes_its_steps_and_one_all_reduce(replicas: int) -> None:
    """T(H steps) = H·t + T_AR(V), exactly where one bucket has all parameters."""
    many = [*LOCAL, *WHOLE, f"data={replicas}", "sync_period=8", "horizon=16"]
    alone = predict(load(None, [*SMALL, *WHOLE, "data=1", "horizon=16"])).iteration_time_s
    experiment = load(None, many)
    prediction = predict(experiment)
    assert prediction.program.num_ranks == 1, "one replica stands for all"
    program = lower(experiment)
    costs = costs_of(program, experiment, resolve(experiment))
    average = next(i for i in program if i.task.name == "AVERAGE")
    assert average.task.nbytes == BLOCK * BLOCKS
    both = 2 * costs.seconds(average)
    assert prediction.iteration_time_s == pytest.approx(alone + both, rel=1e-9)


def test_a_slow_replica_is_waited_for_all_the_same() -> None:
    """Local steps do not help against a rank that is always slower."""
    keys = [*LOCAL, *WHOLE, "data=4", "sync_period=8", "horizon=8"]
    usual, slow = load(None, keys), load(None, [*keys, "slowdown={2 = 1.5}"])
    alone = predict(load(None, [*SMALL, *WHOLE, "data=1", "horizon=8"])).iteration_time_s
    difference = predict(slow).iteration_time_s - predict(usual).iteration_time_s
    assert difference == pytest.approx(0.5 * alone, rel=1e-9)


def test_longer_periods_wait_less_for_jitter() -> None:
    """What is waited for the slowest of n falls about as 1/√H (the largest of n sums of H)."""
    keys = [*LOCAL, *WHOLE, "data=8", "horizon=256", "jitter=lognormal", "jitter_spread=0.5"]
    alone = predict(load(None, [*SMALL, *WHOLE, "data=1", "horizon=256"])).iteration_time_s

    def waited(period: int) -> float:
        """Without what the averages take."""
        experiment = load(None, [*keys, f"sync_period={period}"])
        even = load(None, [*LOCAL, *WHOLE, "data=8", "horizon=256", f"sync_period={period}"])
        own = predict(even).iteration_time_s - alone
        return predict(experiment).iteration_time_s - alone - own

    assert waited(1) / waited(16) == pytest.approx(4, rel=0.35)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([], "'local-sgd': needs parallel.sync_period, which is not set"),
        (["sync_period=3"], "divides run.horizon = 4: 1, 2, 4; or run.horizon = 6"),
        (["sync_period=8"], "allowed: what divides run.horizon = 4: 1, 2, 4"),
        (["sync_period=2", "local_after=1"], "parallel.local_after = 3: 1, 3; or run.horizon = 5"),
        (["sync_period=1", "local_after=4"], "leaves no local step of run.horizon = 4"),
        (["sync_period=2", "zero=1"], "parallel.zero = 1: replicas share what is equal"),
        (["sync_period=2", "data=1"], "there is one replica, and nothing to exchange"),
        (["sync_period=2", "model=unit"], "workload.model = 'unit' has no parameters"),
        (
            ["sync_period=2", "pipeline=2", "schedule=pipedream"],
            "parallel.schedule = 'pipedream': passes of several versions",
        ),
        (
            ["sync_period=2", "local_after=2", "dtype=fp16"],
            "replicas have loss scales of their own",
        ),
        (["sync_period=2", "servers=1"], "parallel.servers = 1: only for"),
        (["data_style=all-reduce", "sync_period=2"], "only for parallel.data_style = 'local-sgd'"),
        (["data_style=all-reduce", "local_after=2"], "only for parallel.data_style = 'local-sgd'"),
    ],
)
def test_what_does_not_compose_is_refused(settings: list[str], message: str) -> None:
    keys = ["model=mlp", "pipeline=1", "data=2", "data_style=local-sgd", "horizon=4", *settings]
    with pytest.raises(ExperimentError) as error:
        load(None, keys)
    assert message in str(error.value)


@pytest.mark.parametrize("style", ["local-sgd", "diloco"])
@pytest.mark.parametrize(
    "settings",
    [
        ["data=8", "tensor=2", "pipeline=2", "microbatches=4"],
        ["data=6", "tensor=2", "sequence_parallel=true", "slowdown={5 = 2}"],
        ["data=6", "context=2", "pipeline=3", "microbatches=3"],
    ],
    ids=["tensor", "uneven", "context"],
)
def test_replicas_that_are_simulated_once_take_what_all_take(
    style: str, settings: list[str]
) -> None:
    keys = ["model=gpt", "layers=6", "hidden=64", "heads=4", "sequence=16", "pipeline=1"]
    keys += ["preset=dgx-a100-80gb", f"data_style={style}", "sync_period=2", "horizon=4"]
    experiment = load(None, [*keys, *settings])
    folded = predict(experiment)
    assert folded.program.is_folded
    whole = predict(experiment, resolve(experiment), lower(experiment))
    assert folded.iteration_time_s == pytest.approx(whole.iteration_time_s, rel=1e-9)
    assert folded.metrics.program.hash == whole.metrics.program.hash
    for mine, theirs in zip(folded.metrics.ranks, whole.metrics.ranks, strict=True):
        assert mine.exposed_comm_s == pytest.approx(theirs.exposed_comm_s, rel=1e-6, abs=1e-12)
