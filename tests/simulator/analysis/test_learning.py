"""Curves of losses: smoothed as is said, and at the target when that is so."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from simulator.analysis.learning import HEADER, Learning, LearningCurve, trailing_mean

COUNT = 40


def curve(name: str = "a", scale: float = 1.0, **other: object) -> LearningCurve:
    """Two workers; the loss falls by 1 a step, and one worker's is 1 above the other's."""
    step = np.arange(COUNT) // 2
    given = {
        "name": name,
        "plan": "mlp, data 2",
        "cluster": "laptop",
        "workload": "mlp",
        "steps": COUNT // 2,
        "step_points": 2,
        "time_s": scale * (np.arange(COUNT) + 1.0),
        "samples": 4.0 * (np.arange(COUNT) + 1),
        "bytes_sent": 1e6 * step,
        "loss": 100.0 - step + np.arange(COUNT) % 2,
        "smoothing_steps": 3,
    }
    return LearningCurve(**given | other)  # type: ignore[arg-type]


def test_a_trailing_mean_has_the_window_that_is_asked_for() -> None:
    values, window = np.array([1.0, 3.0, 5.0, 7.0]), np.array([2, 2, 1, 3])
    assert trailing_mean(values, window).tolist() == [1.0, 2.0, 5.0, 5.0]
    spoilt = trailing_mean(np.array([1.0, np.inf, 1.0]), np.array([1, 1, 1]))
    assert spoilt[0] == 1.0
    assert np.isnan(spoilt[1:]).all()
    assert not trailing_mean(np.empty(0), np.empty(0, np.int64)).size


def test_smoothing_takes_one_step_then_a_fifth_then_no_more_steps_than_asked() -> None:
    found = curve()
    assert found.smoothed[0] == found.loss[0]
    assert found.smoothed[3] == found.loss[2:4].mean()
    assert found.smoothed[24] == found.loss[20:25].mean()
    assert found.smoothed[-1] == found.loss[-6:].mean() == found.final_loss


def test_the_target_is_reached_at_the_first_smoothed_loss_that_is_as_low() -> None:
    found = curve()
    at = int(np.argmax(found.smoothed <= 95.0))
    reached = found.reached(95.0)
    assert reached == (found.time_s[at], found.samples[at], found.bytes_sent[at])
    assert found.reached(found.final_loss - 0.01) is None
    early = found.reached(1000.0)
    assert early is not None
    assert early.samples == 8.0  # a whole step, not its first microbatch


def test_a_training_that_diverges_is_not_finite_and_never_reaches_anything_more() -> None:
    loss = 100.0 - np.arange(COUNT)
    loss[10:] = np.nan
    found = curve(loss=loss)
    assert not found.is_finite
    assert math.isnan(found.final_loss)
    assert found.reached(80.0) is None
    assert found.to_json()["final_loss"] is None
    json.dumps(found.to_json(), allow_nan=False)


def test_tables_and_json_have_every_plan() -> None:
    both = Learning(curves=[curve("slow", 2.0), curve("fast")], target_loss=90.0)
    assert [row[0] for row in both.rows()] == ["slow", "fast"]
    assert all(len(row) == len(HEADER) for row in both.rows())
    assert [row[0] for row in both.target_rows()] == ["fast", "slow"]
    plain = both.to_json(points=7)
    assert [len(plan["curve"]["loss"]) for plan in plain["plans"]] == [7, 7]
    first, second = (plan["reached"] for plan in plain["plans"])
    assert first["time_s"] == pytest.approx(2 * second["time_s"])
    assert len(both.to_json(points=None)["plans"][0]["curve"]["time_s"]) == COUNT
    assert "<td>fast</td>" in both._repr_html_()
    late = Learning(curves=[curve()], target_loss=0.0)
    assert late.target_rows() == [("a", "not reached", "", "")]
    assert late.to_json()["plans"][0]["reached"] is None
