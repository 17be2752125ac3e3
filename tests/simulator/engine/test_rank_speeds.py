"""Ranks are as slow as they are said to be, in every training step, and nobody else."""

from __future__ import annotations

import numpy as np
import pytest

from simulator import load, lower, predict
from simulator.cluster.resolve import resolve
from simulator.engine.costs import costs_of
from simulator.engine.rank_speeds import RankSpeeds
from simulator.engine.replica_folding import folding_of
from simulator.experiment.section import ExperimentError
from simulator.program.stream import COMPUTE_STREAM

MLP = ("model=mlp", "pipeline=1", "microbatches=2", "preset=dgx-a100-80gb")
UNIT = ("model=unit", "pipeline=4", "microbatches=4", "schedule=gpipe")
JITTER = ("jitter=lognormal", "jitter_spread=0.3")


def plan(*settings: str):
    return load(None, list(settings))


def test_a_slow_rank_computes_longer_and_communicates_as_ever() -> None:
    even, slow = plan(*MLP, "data=2"), plan(*MLP, "data=2", "slowdown={1=1.5}")
    program = lower(even)
    assert lower(slow).hash() == program.hash()
    costs = [costs_of(program, one, resolve(one)) for one in (even, slow)]
    for instruction in program:
        usual, now = (cost.seconds(instruction) for cost in costs)
        slowed = instruction.rank == 1 and instruction.task.stream == COMPUTE_STREAM
        assert now == pytest.approx(usual * (1.5 if slowed else 1.0))
    assert costs[1].all_seconds(program) == pytest.approx([costs[1].seconds(i) for i in program])


def test_the_step_of_a_pipeline_is_that_of_its_slow_stage() -> None:
    """GPipe with m microbatches, one stage f times slower: (p - 1 + f·m) times a pass."""
    usual = predict(plan(*UNIT, "p2p=0")).iteration_time_s
    slowed = predict(plan(*UNIT, "p2p=0", "slowdown={2 = 3}")).iteration_time_s
    assert slowed / usual == pytest.approx((4 - 1 + 3 * 4) / (4 - 1 + 4))


@pytest.mark.parametrize("settings", [MLP, UNIT])
def test_draws_are_of_a_rank_and_a_step(settings: tuple[str, ...]) -> None:
    experiment = plan(*settings, "data=2", *JITTER, "horizon=3")
    program, usual = lower(experiment), plan(*settings, "data=2", "horizon=3")
    costs = costs_of(program, experiment, resolve(experiment))
    before = costs_of(program, usual, resolve(usual))
    speeds = RankSpeeds(experiment)
    assert not costs.are_alike()
    factors: dict[tuple[int, int], float] = {}
    for instruction in program:
        factor = 1.0
        if instruction.task.stream == COMPUTE_STREAM:
            factor = float(speeds.of_rank(instruction.rank)[instruction.step])
            factors[instruction.rank, instruction.step] = factor
        assert costs.seconds(instruction) == pytest.approx(before.seconds(instruction) * factor)
    assert len(set(factors.values())) == 3 * experiment.world_size
    assert costs.all_seconds(program) == pytest.approx([costs.seconds(i) for i in program])


def test_more_ranks_and_more_steps_leave_the_draws_of_others_as_they_are() -> None:
    few = RankSpeeds(plan(*MLP, "data=2", *JITTER, "horizon=4"))
    many = RankSpeeds(plan(*MLP, "data=4", *JITTER, "horizon=9"))
    assert many.of_rank(1)[:4].tolist() == few.of_rank(1).tolist()


def test_the_seed_is_its_own_or_that_of_the_run() -> None:
    drawn = [
        RankSpeeds(plan(*MLP, *JITTER, *more)).of_rank(0).tolist()
        for more in ((), ("run.seed=1",), ("jitter_seed=1",), ("jitter_seed=1", "run.seed=2"))
    ]
    assert drawn[0] != drawn[1]
    assert drawn[1] == drawn[2] == drawn[3]


@pytest.mark.parametrize("spread", [0.2, 0.9])
@pytest.mark.parametrize("name", ["lognormal", "shifted-exponential"])
def test_factors_have_mean_one_and_the_spread(name: str, spread: float) -> None:
    keys = (f"jitter={name}", f"jitter_spread={spread}", "horizon=200000")
    drawn = RankSpeeds(plan(*MLP, *keys)).of_rank(0)
    assert drawn.mean() == pytest.approx(1.0, abs=5 * spread / np.sqrt(len(drawn)))
    assert drawn.std() == pytest.approx(spread, rel=0.05)
    least = 1 - spread if name == "shifted-exponential" else 0.0
    assert drawn.min() >= least


def test_synchronous_steps_wait_for_the_slowest_of_exponential_workers() -> None:
    """The mean of the largest of n shifted exponential times: c + H_n/λ (Chen et al. 2016)."""
    keys = ("jitter=shifted-exponential", "jitter_spread=0.5", "horizon=400", "workload.hidden=64")
    one = predict(plan(*MLP, "data=1", "workload.hidden=64")).iteration_time_s
    all_of_8 = predict(plan(*MLP, "data=8", *keys))
    compute = np.array([RankSpeeds(all_of_8.experiment).of_rank(r) for r in range(8)]).max(axis=0)
    expected = 0.5 + 0.5 * sum(1 / k for k in range(1, 9))
    assert compute.mean() == pytest.approx(expected, rel=0.1)
    assert all_of_8.iteration_time_s > 400 * one * compute.mean()


def test_slow_ranks_stand_for_themselves_and_drawn_ones_each() -> None:
    even = plan(*MLP, "data=16")
    slow = plan(*MLP, "data=16", "slowdown={5=2, 6=2}")
    drawn = plan(*MLP, "data=16", *JITTER)
    folding = [folding_of(one, resolve(one)) for one in (even, slow, drawn)]
    assert folding[0] is not None and max(folding[0].list_of) == 0
    assert folding[1] is not None and folding[2] is None
    of_slow = folding[1].list_of
    assert of_slow[5] == of_slow[6] and of_slow.count(of_slow[5]) == 2
    cluster = resolve(slow)
    whole = predict(slow, cluster, lower(slow)).iteration_time_s
    assert predict(slow, cluster).iteration_time_s == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["slowdown={9 = 2}"], "cluster.slowdown of rank 9: this plan has ranks 0 to 3"),
        (["slowdown=[1, 0]"], "cluster.slowdown = [1, 0]: allowed: a factor above 0"),
        (["slowdown={a = 1}"], "cluster.slowdown = {'a': 1}: allowed: a factor above 0"),
        (["jitter=lognormal"], "needs cluster.jitter_spread"),
        (["jitter_spread=1"], "cluster.jitter_spread = 1.0: only with cluster.jitter"),
        (["jitter_seed=1"], "cluster.jitter_seed = 1: only with cluster.jitter"),
        (["jitter=shifted-exponential", "jitter_spread=1.5"], "allowed: at most 1"),
    ],
)
def test_speeds_that_mean_nothing_are_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ExperimentError) as error:
        plan(*UNIT, *settings)
    assert message in str(error.value)
