"""Updates and samples per second, once a program of several steps has settled."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from simulator.analysis.pushes import Push, pushes_of
from simulator.analysis.step_times import StepTimes
from simulator.timeline.timeline import Timeline


@dataclass(frozen=True)
class Rates:
    """The pace of training in steady state, in the cluster's own time where a run is paced.

    Where workers go on at their own pace, that is from when each of them has pushed once until
    one of them has pushed for the last time; else it is that of `StepTimes.steady_s`. With
    several servers, the updates are those of one of them, on average.

    Attributes:
        updates_per_s: updates of the parameters.
        samples_per_s: samples whose gradients went into them.
        update_s: seconds from an update to the next.
    """

    updates_per_s: float
    samples_per_s: float
    update_s: float

    def scaled(self, factor: float) -> Rates:
        """Return the rates of a timeline that is `factor` times longer."""
        return replace(
            self,
            updates_per_s=self.updates_per_s / factor,
            samples_per_s=self.samples_per_s / factor,
            update_s=self.update_s * factor,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields under their names."""
        return dict(vars(self))


def rates_of(
    timeline: Timeline,
    steps: StepTimes | None,
    samples: int,
    workers: int,
    dropped: Set[int] = frozenset(),
) -> Rates | None:
    """Return the rates of a timeline; None: it has too few steps to settle.

    Args:
        timeline: of any number of steps.
        steps: its times.
        samples: of a training step of all workers.
        workers: how many share them.
        dropped: spans of pushes that came too late to count.
    """
    if pushes := pushes_of(timeline):
        return _by_arrival(timeline, pushes, samples / workers, dropped)
    if steps is None or not steps.steady_s:
        return None
    return Rates(1.0 / steps.steady_s, samples / steps.steady_s, steps.steady_s)


def _by_arrival(
    timeline: Timeline, pushes: Sequence[Push], samples: float, dropped: Set[int]
) -> Rates | None:
    """Return the rates of workers that push gradients of so many samples each.

    The pace of each worker at each server is that of its pushes from the first to the last of
    those in the time in which all are at work; the paces of all add up.
    """
    times: dict[tuple[int, int], list[float]] = {}
    for push in pushes:
        ends = times.setdefault((push.worker, push.server), [])
        ends.append(float(timeline.end[push.write]))
    begin, end = max(mine[0] for mine in times.values()), min(mine[-1] for mine in times.values())
    pace = 0.0
    for mine in times.values():
        inside = [time for time in mine if begin <= time <= end]
        if len(inside) < 2:
            return None
        pace += (len(inside) - 1) / (inside[-1] - inside[0])
    pace /= len({server for _, server in times})
    counted = sum(push.push not in dropped for push in pushes) / len(pushes)
    rate = pace * sum(push.is_due for push in pushes) / len(pushes)
    return Rates(rate, pace * counted * samples, 1.0 / rate) if rate > 0 else None
