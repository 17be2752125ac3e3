"""Learning rates are torch's, over iterations of one step or of several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from runtime.executor.learning_rate import LearningRate
from torch_rates import stepper

SCHEDULES: list[dict[str, Any]] = [
    {},
    {"learning_rate_scaling": "sqrt", "data": 4},
    {"learning_rate_warmup": 4},
    {"learning_rate_schedule": "linear", "learning_rate_decay": 6},
    {
        "learning_rate_schedule": "linear",
        "learning_rate_warmup": 3,
        "learning_rate_decay": 5,
        "learning_rate_floor": 0.2,
        "learning_rate_scaling": "linear",
        "data": 2,
    },
    {"learning_rate_schedule": "cosine", "learning_rate_decay": 12, "learning_rate_floor": 0.1},
    {
        "learning_rate_schedule": "cosine",
        "learning_rate_warmup": 2,
        "learning_rate_decay": 10,
    },
    {
        "learning_rate_schedule": "plateau",
        "plateau_period": 2,
        "plateau_patience": 1,
        "plateau_factor": 0.5,
        "learning_rate_floor": 0.3,
    },
]
LOSSES = [4.0, 3.0, 3.5, 3.0, 3.2, 3.1, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0]


@pytest.mark.parametrize("keys", SCHEDULES, ids=str)
@pytest.mark.parametrize("horizon", [1, 3])
def test_rates_are_those_of_torch(
    keys: dict[str, Any], horizon: int, experiment: Callable[..., Any]
) -> None:
    if horizon > 1 and "plateau_period" in keys:
        horizon, keys = 2, keys | {"plateau_period": 1}  # two steps are looked at, as before
        torchs = experiment(**keys | {"plateau_period": 2})
    else:
        torchs = experiment(**keys)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    next_rate = stepper(optimizer, torchs)
    ours = LearningRate(experiment(**keys, horizon=horizon))
    for first in range(0, len(LOSSES), horizon):
        ours.begin()
        losses = LOSSES[first : first + horizon]
        for step, loss in enumerate(losses):
            expected = optimizer.param_groups[0]["lr"]
            assert ours.at(step) == pytest.approx(expected, rel=1e-12, abs=1e-15), first + step
            optimizer.step()
            next_rate(loss)
        ours.look(losses)


def test_a_rate_stays_at_its_floor(experiment: Callable[..., Any]) -> None:
    keys = {"learning_rate_schedule": "cosine", "learning_rate_decay": 4, "horizon": 100}
    rate = LearningRate(experiment(**keys, learning_rate_floor=0.25))
    assert [rate.at(step) for step in (4, 5, 8, 99)] == pytest.approx([0.025] * 4)
