"""A calibrated profile: what was measured on one machine, with its spread.

JSON, written by ``twinline calibrate`` and read here without torch. Times are in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np

from simulator.cluster.collectives import ring_seconds

TENTHS = 10


@dataclass(frozen=True)
class Timing:
    """A measured duration, seconds: mean of all but the extremes (see `middle_mean`), 10th and
    90th percentile, and ten durations that are equally likely: the means of the tenths of
    the sorted samples. Of a transfer also `busy_s`: the mean while all ranks compute, where
    that was measured.
    """

    mean_s: float
    p10_s: float
    p90_s: float
    samples: int
    tenths: tuple[float, ...]
    busy_s: float | None = None

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        low, high = np.percentile(seconds, [10, 90])
        mean, count, ordered = middle_mean(seconds), len(seconds), sorted(seconds)
        edges = [number * count / TENTHS for number in range(TENTHS + 1)]
        tenths = tuple(
            float(np.mean(ordered[int(first) : ceil(last)])) for first, last in pairwise(edges)
        )
        return cls(mean, float(low), float(high), count, tenths)

    @classmethod
    def certain(cls, seconds: float) -> Timing:
        """A duration without a spread."""
        return cls(seconds, seconds, seconds, 1, (seconds,) * TENTHS)

    @classmethod
    def parse(cls, data: dict[str, Any]) -> Timing:
        """From its JSON object; raises KeyError, TypeError or ValueError if damaged."""
        timing = cls(**data | {"tenths": tuple(data["tenths"])})
        check_numbers([timing.mean_s, timing.p10_s, timing.p90_s, *timing.tenths])
        if timing.busy_s is not None:
            check_numbers([timing.busy_s])
            if timing.busy_s < timing.mean_s:
                raise ValueError("a transfer is faster beside passes than alone")
        if len(timing.tenths) != TENTHS:
            raise ValueError(f"{len(timing.tenths)} tenths")
        return timing

    def scaled(self, factor: float) -> Timing:
        tenths = tuple(seconds * factor for seconds in self.tenths)
        times = (self.mean_s * factor, self.p10_s * factor, self.p90_s * factor)
        busy_s = None if self.busy_s is None else self.busy_s * factor
        return Timing(*times, self.samples, tenths, busy_s)


Points = list[tuple[int, Timing]]


def middle_mean(seconds: Sequence[float]) -> float:
    """Without the lowest and highest twentieth.

    Not the median: a step adds many passes up, and where some are disturbed the sum of
    medians is less than the median of sums.
    """
    cut = len(seconds) // 20
    return float(np.mean(sorted(seconds)[cut : len(seconds) - cut]))


@dataclass
class Profile:
    """Measurements of one machine.

    Attributes:
        machine: hostname, processor, cores, versions, date.
        device: cpu or cuda.
        passes: per segment pass (see `simulator.engine.costs.pass_key`).
        rounds: of calibration: what the passes of each rank took ÷ what they take in the mean.
            The spread of `passes` is what is left beside.
        messages: (bytes, duration) of a message between two ranks, sizes ascending.
        collectives: the same per operation and group size (bytes as nccl-tests counts them:
            of the larger side).
        issue_s: host time to begin one compute instruction.
        queue_s: host time that a communication takes from the compute instruction behind it.
        wake_s: from the end of an instruction to the start of one on another stream that
            waited for it; wake_busy_s: the same while all `busy_ranks` ranks compute; None: not
            measured.
        transfer_cores: share of a core that one rank's transfer occupies on idle cores.
        transfer_loss: share of their speed that passes lose beside transfers while all
            `busy_ranks` ranks compute; None: they left cores free, or it was not measured.
        capacity: how many passes at once, of ranks that share a host's cores or a device, get
            as much done as that many alone: less than `machine`'s cores where they share caches,
            memory or their clock, more than one device where passes leave gaps. None: not
            measured, taken as neither less nor more.
        ranks_per_device: that share one.
        peak_flops: best matrix product seen per dtype, FLOP/s.
    """

    machine: dict[str, Any]
    device: str = "cpu"
    passes: dict[str, Timing] = field(default_factory=dict)
    rounds: list[list[float]] = field(default_factory=list)
    messages: Points = field(default_factory=list)
    collectives: dict[str, dict[int, Points]] = field(default_factory=dict)
    issue_s: float = 0.0
    queue_s: float = 0.0
    wake_s: float = 0.0
    wake_busy_s: float | None = None
    transfer_cores: float = 0.0
    transfer_loss: float | None = None
    busy_ranks: int = 1
    capacity: float | None = None
    ranks_per_device: int = 1
    peak_flops: dict[str, float] = field(default_factory=dict)

    @property
    def place(self) -> tuple[str | None, str, int]:
        """What it was measured on: host, kind of device, and ranks on one."""
        return self.machine.get("hostname"), self.device, self.ranks_per_device

    def without_busy(self) -> Profile:
        """Without what transfers took beside `busy_ranks` ranks, for a profile of others."""

        def alone(points: Points) -> Points:
            return [(size, replace(timing, busy_s=None)) for size, timing in points]

        collectives = {
            op: {size: alone(points) for size, points in sizes.items()}
            for op, sizes in self.collectives.items()
        }
        return replace(self, messages=alone(self.messages), collectives=collectives)

    def message(self, nbytes: float) -> Timing:
        return interpolate(self.messages, nbytes)

    def collective(self, op: str, size: int, nbytes: float) -> Timing | None:
        """From the points of this operation and group size; without them, the ring formula
        scaled from the nearest size measured, or from all-reduces. None: nothing to go by.
        """
        known = "ALL_REDUCE" if op not in self.collectives else op
        measured = self.collectives.get(known)
        if not measured:
            return None
        nearest = min(measured, key=lambda other: (abs(other - size), other))
        timing = interpolate(measured[nearest], nbytes)
        if (known, nearest) == (op, size):
            return timing
        formula, by = ring_seconds(op, size, nbytes, 1e-4, 1e9), (known, nearest, nbytes)
        return timing.scaled(formula / ring_seconds(*by, 1e-4, 1e9))


def interpolate(points: Points, nbytes: float) -> Timing:
    """For `nbytes`: linear between measured sizes, above them by the last slope; nothing
    takes less than the smallest. A message of the nearest size tells the spread.
    """
    sizes = [size for size, _ in points]
    means = [timing.mean_s for _, timing in points]
    nearest = min(points, key=lambda point: abs(point[0] - nbytes))[1]
    if nbytes <= sizes[-1] or len(points) == 1:
        seconds = float(np.interp(nbytes, sizes, means))
    else:
        slope = max((means[-1] - means[-2]) / (sizes[-1] - sizes[-2]), 0.0)
        seconds = means[-1] + slope * (nbytes - sizes[-1])
    if nearest.mean_s <= 0:
        return Timing.certain(seconds)
    return nearest.scaled(seconds / nearest.mean_s)


def check_numbers(values: list[Any]) -> None:
    for value in values:
        if not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise ValueError(f"{value!r} is not a number of 0 or more")
