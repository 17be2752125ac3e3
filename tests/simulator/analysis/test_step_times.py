"""The times of single training steps, read from timelines of several."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.analysis.step_times import StepTimes, step_ends, step_times
from simulator.timeline.timeline import Kind, Timeline

FORWARD = Kind("F", "F", 0, -1, "compute", -1, 0)


def timeline(steps: list[int], ends: list[float]) -> Timeline:
    """Return a timeline of one rank with passes that end at these times."""
    zeros = np.zeros(len(ends), dtype=np.int64)
    end = np.array(ends)
    return Timeline(1, [FORWARD], zeros, zeros, zeros, end, end, end, step=np.array(steps))


def test_steps_end_with_the_last_of_their_instructions() -> None:
    several = timeline([0, 1, 0, 1, 2, 3], [1.0, 2.0, 3.0, 5.0, 6.5, 8.0])
    assert step_ends(several).tolist() == [3.0, 5.0, 6.5, 8.0]
    assert step_times(several) == StepTimes(4, 2.0, 3.0, steady_s=1.5)  # not the first interval
    assert step_times(timeline([0, 1], [1.0, 3.0])).steady_s == 2.0


def test_a_steady_state_has_whole_periods() -> None:
    averaged = timeline([0, 1, 2, 3, 4, 5], [1.0, 4.0, 5.0, 8.0, 9.0, 12.0])  # every other step
    assert step_times(averaged, 2).steady_s == 2.0
    assert step_times(averaged, 3).steady_s == pytest.approx((12.0 - 5.0) / 3)
    assert step_times(averaged, 6).steady_s is None


def test_a_steady_state_has_no_steps_from_before_the_first_period() -> None:
    late = timeline([0, 1, 2, 3, 4], [10.0, 20.0, 30.0, 31.0, 35.0])
    assert step_times(late, 2, before=3).steady_s == 2.5
    assert step_times(late, 1, before=3).steady_s == 2.5
    assert step_times(late, 1, before=1) == step_times(late)


def test_one_step_has_no_steady_state() -> None:
    one = step_times(timeline([0, 0], [1.0, 2.0]))
    assert one == StepTimes(1, 2.0, 2.0)
    assert one.to_json()["steady_s"] is None


def test_scaled_times_keep_that_of_the_drained_step() -> None:
    """It is of another program, which has a time of its own."""
    scaled = StepTimes(2, 2.0, 3.0, 1.0, drained_s=4.0).scaled(2.0)
    assert scaled == StepTimes(2, 4.0, 6.0, 2.0, drained_s=4.0)
    assert StepTimes(1, 2.0, 3.0).scaled(0.5).steady_s is None


@pytest.mark.parametrize("horizon", [1, 4])
def test_an_empty_step_ends_at_once(horizon: int) -> None:
    assert step_ends(timeline([horizon - 1], [1.0])).tolist() == [0.0] * (horizon - 1) + [1.0]
