"""Keys of the learning rate that nothing reads are refused, and its shares have known ends."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.experiment.learning_rate import scaled_learning_rate, share_at
from simulator.experiment.section import ExperimentError
from simulator.experiment_file import experiment


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"learning_rate_schedule": "cosine"},
            "run.learning_rate_schedule = 'cosine': needs run.learning_rate_decay",
        ),
        (
            {"learning_rate_decay": 5},
            "run.learning_rate_decay = 5: only for run.learning_rate_schedule = 'linear' or",
        ),
        (
            {"learning_rate_schedule": "plateau", "learning_rate_decay": 5},
            "run.learning_rate_decay = 5: only for",
        ),
        ({"plateau_patience": 5}, "only for run.learning_rate_schedule = 'plateau', not 'const"),
        ({"learning_rate_floor": 1.5}, "run.learning_rate_floor = 1.5: allowed: less than 1"),
        (
            {"model": "unit", "learning_rate_warmup": 5},
            "run.learning_rate_warmup = 5: workload.model = 'unit' has no parameters",
        ),
        ({"learning_rate_schedule": "exponential"}, "allowed: 'constant', 'linear', 'cosine' or"),
    ],
)
def test_what_has_no_effect_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ExperimentError) as caught:
        experiment(**keys)
    assert message in str(caught.value)


def test_shares_rise_from_the_first_step_on_and_fall_to_the_floor() -> None:
    run = experiment(
        learning_rate_schedule="linear",
        learning_rate_warmup=4,
        learning_rate_decay=4,
        learning_rate_floor=0.5,
    ).run
    shares = [share_at(run, step) for step in range(10)]
    assert shares == [0.25, 0.5, 0.75, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.5]


@pytest.mark.parametrize(("scaling", "factor"), [("none", 1), ("linear", 9), ("sqrt", 3)])
def test_workers_are_those_that_share_the_batch(scaling: str, factor: float) -> None:
    plan = experiment(data=9, pipeline=2, lr=0.5, learning_rate_scaling=scaling, model="gpt")
    assert scaled_learning_rate(plan) == pytest.approx(0.5 * factor)
