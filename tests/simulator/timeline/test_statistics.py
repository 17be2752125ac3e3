"""Figures over all iterations of a run: as JSON and back."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from simulator.program.staleness import StageStaleness
from simulator.timeline.statistics import (
    ExpertLoad,
    LossScale,
    PacingReport,
    Statistics,
    over_iterations,
    usual_iteration,
)

FULL = Statistics(
    2.0,
    1.0,
    3.0,
    losses=[4.5, 4.25],
    parameters_norm=7.0,
    staleness=[StageStaleness(0, 1, [0, 1])],
    moe=ExpertLoad(0.0, [0.5, 0.5], [[0.5, 0.5]]),
    allocator_peak_bytes=[10, 20],
    allocator_reserved_bytes=[30, 40],
    pacing=PacingReport(8, 1, 0.5, 1.5, "rank 1, 0F0", 3.0),
    loss_scale=LossScale(1024.0, 2),
)


def test_percentiles_by_hand() -> None:
    found = over_iterations([float(n) for n in range(11)])
    assert found == Statistics(5.0, 1.0, 9.0)


@pytest.mark.parametrize("statistics", [FULL, Statistics(2.0, 1.0, 3.0)])
def test_as_json_and_back(statistics: Statistics) -> None:
    text = json.dumps(statistics.to_json(), allow_nan=False)
    assert Statistics.from_json(json.loads(text)) == statistics


def test_what_does_not_apply_is_left_out() -> None:
    assert list(Statistics(2.0, 1.0, 3.0).to_json()) == [
        "iteration_time_s",
        "iteration_time_p10_s",
        "iteration_time_p90_s",
    ]


def test_a_loss_that_is_not_finite_is_null_and_a_note() -> None:
    wrong = replace(FULL, losses=[4.5, math.nan, math.inf], parameters_norm=math.nan)
    plain = json.loads(json.dumps(wrong.to_json(), allow_nan=False))
    assert (plain["losses"], plain["parameters_norm"]) == ([4.5, None, None], None)
    again = Statistics.from_json(plain)
    assert again.losses is not None
    assert [math.isfinite(loss) for loss in again.losses] == [True, False, False]
    note = "the loss is not finite in 2 of 3 training steps, first in step 1"
    assert again.notes == wrong.notes == [note]
    assert FULL.notes == []


@pytest.mark.parametrize(
    "change",
    [
        {"iteration_time_s": None},
        {"iteration_time_s": "2"},
        {"unknown": 1},
        {"moe": {"load": []}},
        {"staleness": [3]},
        {"losses": 3},
    ],
)
def test_damaged_statistics_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        Statistics.from_json(FULL.to_json() | change)


def test_the_usual_iteration_took_the_median_time() -> None:
    assert usual_iteration([5.0, 1.0, 3.0]) == 2
    assert usual_iteration([5.0, 1.0, 3.0, 4.0]) == 2  # the shorter one of the two in the middle
    assert usual_iteration([2.0]) == 0
