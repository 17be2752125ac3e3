"""A job needs at least what its program holds, and twice what stays if it also calibrates."""

from __future__ import annotations

import pytest

from runtime.launch.job import Job
from runtime.launch.least_memory import least_memory
from simulator import load, lower, predict


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "zb-h1"])
@pytest.mark.parametrize("more", [[], ["parallel.data=2", "parallel.zero=3"]])
def test_the_least_peak_is_at_most_the_predicted_one(schedule: str, more: list[str]) -> None:
    experiment = load(None, [f"parallel.schedule={schedule}", *more])
    program = lower(experiment)
    for number, rank in enumerate(predict(experiment).ranks):
        least = least_memory(Job(experiment), program, [number])
        assert 0.8 * rank.peak_memory_bytes < least <= rank.peak_memory_bytes


def test_to_compare_takes_what_stays_twice() -> None:
    experiment = load(None, ["workload.optimizer=adamw"])
    program = lower(experiment)
    alone = least_memory(Job(experiment), program, [1])
    assert alone == least_memory(Job(experiment, measure=False, calibrate=True), program, [1])
    both = least_memory(Job(experiment, calibrate=True), program, [1])
    assert both - alone == sum(program.resident[1].values())
