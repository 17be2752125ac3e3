"""Updates and samples per second, once a program of several steps has settled."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from simulator.analysis.pushes import Push, pushes_of
from simulator.analysis.step_times import StepTimes
from simulator.timeline.timeline import Timeline


@dataclass(frozen=True)
class Rates:
    """The pace of training in steady state, in the cluster's own time where a run is paced.

    Where workers go on at their own pace, that is from when each of them has pushed once until
    one of them has pushed for the last time; else it is that of `StepTimes.steady_s`. Where no
    worker gets far ahead of the slowest, it begins when they have the lead that they keep. With
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
    is_bounded: bool = False,
) -> Rates | None:
    """Return the rates of a timeline; None: it has too few steps to settle.

    Args:
        timeline: of any number of steps.
        steps: its times.
        samples: of a training step of all workers.
        workers: how many share them.
        dropped: spans of pushes that came too late to count.
        is_bounded: no worker gets further ahead of the slowest than some number of pushes.
    """
    if pushes := pushes_of(timeline):
        return _by_arrival(timeline, pushes, samples / workers, dropped, is_bounded)
    if steps is None or not steps.steady_s:
        return None
    return Rates(1.0 / steps.steady_s, samples / steps.steady_s, steps.steady_s)


def _by_arrival(
    timeline: Timeline,
    pushes: Sequence[Push],
    samples: float,
    dropped: Set[int],
    is_bounded: bool,
) -> Rates | None:
    """Return the rates of workers that push gradients of so many samples each."""
    times: dict[tuple[int, int], list[float]] = {}
    for push in pushes:
        ends = times.setdefault((push.worker, push.server), [])
        ends.append(float(timeline.end[push.write]))
    pace = (_pace_of_slowest if is_bounded else _sum_of_paces)([*times.values()])
    pace /= len({server for _, server in times})
    counted = sum(push.push not in dropped for push in pushes) / len(pushes)
    rate = pace * sum(push.is_due for push in pushes) / len(pushes)
    return Rates(rate, pace * counted * samples, 1.0 / rate) if rate > 0 else None


def _sum_of_paces(times: Sequence[Sequence[float]]) -> float:
    """Return the pushes per second of workers that need not wait for each other; 0: too few.

    The pace of each worker at each server is that of its pushes from the first to the last of
    those in the time in which all are at work; the paces of all add up.

    Args:
        times: of each worker at each server, the moments of its pushes.
    """
    begin, end = max(mine[0] for mine in times), min(mine[-1] for mine in times)
    pace = 0.0
    for mine in times:
        inside = [time for time in mine if begin <= time <= end]
        if len(inside) < 2:
            return 0.0
        pace += (len(inside) - 1) / (inside[-1] - inside[0])
    return pace


def _pace_of_slowest(times: Sequence[Sequence[float]]) -> float:
    """Return the pushes per second of workers that get only so far ahead; 0: too few.

    A round ends when everybody has pushed once more, and in the long run each pushes once in it.
    At first, those that are fast push more often, which is left out: the rounds that count begin
    when the lead of all together is first what it is on average in the second half of the rounds.

    Args:
        times: of each worker at each server, the moments of its pushes.
    """
    end = min(mine[-1] for mine in times)
    rounds = [max(together) for together in zip(*times, strict=False)]
    rounds = [moment for moment in rounds if moment <= end]
    pushed = [sum(bisect_right(mine, moment) for mine in times) for moment in rounds]
    leads = [pushes - len(times) * number for number, pushes in enumerate(pushed)]
    middle = len(rounds) // 2
    usual = fmean(leads[middle:]) if rounds else 0.0
    first = next((number for number in range(middle) if leads[number] >= usual), middle)
    if len(rounds) - first < 2:
        return 0.0
    lasted: float = rounds[-1] - rounds[first]
    return len(times) * (len(rounds) - 1 - first) / lasted
