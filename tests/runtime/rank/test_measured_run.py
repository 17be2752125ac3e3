"""What all ranks report of their steps, put together."""

from __future__ import annotations

import pytest

from runtime.executor.context import RankContext
from runtime.executor.groups import Groups
from runtime.executor.rank import Rank
from runtime.measurement.merge import Allocated
from runtime.progress import Progress
from runtime.rank.measured_run import _median_peaks, pacing_of
from simulator.strategies.lowering import lower


def context_of(experiment, device):
    rank = Rank(experiment, lower(experiment), 0, device, Progress())
    return RankContext(rank, Groups((), 60.0))


def test_unit_is_stretched_to_its_own_times_and_others_to_a_cluster(alone, experiment):
    unit = experiment(model="unit", forward=0.25)
    pacing = pacing_of(context_of(unit, alone))
    assert pacing is not None
    assert pacing.seconds(lower(unit).ranks[0][0]) == 0.25
    assert pacing_of(context_of(experiment(), alone)) is None
    once, twice = (pacing_of(context_of(experiment(pace=pace), alone)) for pace in (1.0, 2.0))
    first = lower(experiment()).ranks[0][0]
    assert twice.seconds(first) == pytest.approx(2 * once.seconds(first))


def test_stages_of_all_ranks_are_listed_once_and_in_order(run):
    ran = run(schedule="pipedream", pipeline=2, data=2, microbatches=3)
    assert [row["stage"] for row in ran.measurement.staleness] == [0, 1]
    assert [row["max_versions_behind"] for row in ran.measurement.staleness] == [1, 0]


def test_what_a_run_does_not_have_is_not_reported(run):
    plain = run(pipeline=2, microbatches=2).measurement
    assert (plain.moe, plain.loss_scale, plain.pacing, plain.allocated) == (None, None, None, [])
    half = run(pipeline=2, microbatches=2, dtype="fp16").measurement
    assert set(half.loss_scale) == {"value", "skipped_steps"}


def test_accepts_are_stretched_to_their_requests_and_idle_steps_are_not(run):
    ran = run(data_style="asynchronous", data=2, layers=2, pace=1.0, microbatches=1)
    pushes = len(ran.program.queues[0].pushes)
    timed = len(ran.program) - (len(ran.program.queues[0].steps) - pushes)
    iterations = ran.experiment.run.iterations
    assert ran.measurement.pacing["executions"] == iterations * timed


def test_peaks_of_the_allocator_are_medians_each():
    steps = [Allocated(3, 10), Allocated(1, 30), Allocated(2, 20)]
    assert _median_peaks(steps) == Allocated(2, 20)
