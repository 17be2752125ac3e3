"""The times of single training steps in a timeline of several."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from simulator.timeline.timeline import Floats, Timeline


@dataclass(frozen=True)
class StepTimes:
    """The times of the training steps of a program.

    Where nothing crosses the end of a step, all of these are equal.

    Attributes:
        horizon: the number of training steps.
        mean_s: seconds, the time of the whole program ÷ the number of steps; it is drained once.
        first_s: seconds until all of the first step has ended; filling a pipeline included.
        steady_s: seconds from the end of a step to the end of the next one, the mean from the
            second to the last, of two from the first; where steps differ by turns, the mean over
            whole periods of them; None for one step, or one period.
        drained_s: seconds of a step of a program that has only this one: what each step would
            take if the pipeline were drained between steps; None where it was not simulated.
    """

    horizon: int
    mean_s: float
    first_s: float
    steady_s: float | None = None
    drained_s: float | None = None

    def scaled(self, factor: float) -> StepTimes:
        """Return the same times × `factor`."""
        return replace(
            self,
            mean_s=self.mean_s * factor,
            first_s=self.first_s * factor,
            steady_s=None if self.steady_s is None else self.steady_s * factor,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields under their names."""
        return dict(vars(self))


def step_ends(timeline: Timeline) -> Floats:
    """Return, per training step, when the last of its instructions ends, in seconds."""
    ends = np.zeros(timeline.horizon)
    np.maximum.at(ends, timeline.step, timeline.end)
    return ends


def step_times(timeline: Timeline, period: int = 1, before: int = 0) -> StepTimes:
    """Return the times of the training steps of a timeline.

    Args:
        timeline: of any number of steps.
        period: the number of steps after which they are alike again.
        before: the number of steps ahead of the first period, which are of another kind.
    """
    ends, count = step_ends(timeline), timeline.horizon
    # The first interval may still be shorter or longer.
    left_out = max(before, 2 if period == 1 and count > 2 else 1)
    periods = (count - left_out) // period
    steady = None
    if periods > 0:
        steps = periods * period
        steady = float(ends[-1] - ends[-1 - steps]) / steps
    return StepTimes(count, timeline.iteration_time / count, float(ends[0]), steady)
