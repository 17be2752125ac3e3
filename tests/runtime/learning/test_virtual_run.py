"""Virtual runs: as many steps as are asked for, with the times of predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime.learning.virtual_run import VirtualRun, of_steps, shape_of, until
from simulator.cluster.resolve import resolve
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import experiment as make
from simulator.prediction import predict

LOCAL = {"data": 2, "data_style": "local-sgd", "sync_period": 3, "horizon": 3, "layers": 2}
PLATEAU = {"learning_rate_schedule": "plateau", "horizon": 4}
SMALL: dict[str, Any] = {"model": "mlp", "layers": 2, "hidden": 16, "preset": "laptop"}


@pytest.mark.parametrize(
    ("keys", "steps", "shape"),
    [
        ({}, 10, (10, 1)),
        ({"horizon": 4}, 10, (10, 1)),
        (LOCAL, 10, (12, 1)),
        (LOCAL | {"local_after": 2, "horizon": 5}, 10, (11, 1)),
        (LOCAL | {"local_after": 2, "horizon": 5}, 1, (5, 1)),
        (PLATEAU, 10, (4, 3)),
    ],
)
def test_a_program_has_whole_periods(
    keys: dict[str, Any], steps: int, shape: tuple[int, int]
) -> None:
    assert shape_of(make(**SMALL | keys), steps) == shape


def run_of(steps: int, **keys: Any) -> VirtualRun:
    plan = make(**SMALL | keys)
    return of_steps(plan, steps, resolve(plan))


def test_times_are_those_of_the_prediction_for_every_rank() -> None:
    """Ranks that are simulated once have the times of those that stand for them."""
    run = run_of(3, data=8, preset="dgx-a100-40gb")
    (timed,) = run.timed()
    assert timed.predicted.num_ranks < run.program.num_ranks == 8
    whole = predict(run.experiment, run.cluster, run.program).recorded
    np.testing.assert_allclose(timed.start, whole.start, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(timed.end, whole.end, rtol=1e-9, atol=1e-12)


def test_iterations_follow_each_other_and_draw_other_jitter() -> None:
    jitter = {"jitter": "lognormal", "jitter_spread": 0.3, "data": 2}
    first, second, third = run_of(12, **PLATEAU, **jitter).timed()
    assert second.begin == first.timeline.iteration_time
    assert third.begin == pytest.approx(second.begin + second.timeline.iteration_time)
    assert first.timeline.iteration_time != second.timeline.iteration_time
    alike = [timed.timeline.iteration_time for timed in run_of(8, **PLATEAU).timed()]
    assert alike[0] == alike[1]


@pytest.mark.parametrize("style", [{}, {"data_style": "asynchronous"}, PLATEAU], ids=str)
def test_every_worker_is_busy_until_the_end(style: dict[str, Any]) -> None:
    plan = make(**SMALL | style | {"data": 2, "slowdown": {"1": 3.0}})
    one = of_steps(plan, 20, resolve(plan))
    end_s = list(one.timed())[-1].end.max()
    run = until(plan, end_s, resolve(plan))
    last = list(run.timed())[-1]
    begins = [*run.program.begins, len(run.program)]
    for rank in range(2):
        assert last.end[begins[rank] : begins[rank + 1]].max() >= end_s
    assert run.steps < 200


def test_too_many_steps_are_refused() -> None:
    plan = make(**SMALL)
    with pytest.raises(
        ExperimentError, match=r"until 1e\+09 s: needs more than 1,000,000 training"
    ):
        until(plan, 1e9, resolve(plan))


def test_a_decision_belongs_to_the_program() -> None:
    run = run_of(4, data=3, data_style="asynchronous")
    (timed,) = run.timed()
    assert len(timed.decisions) == len(run.program.queues[0].accepts)
