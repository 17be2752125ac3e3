"""Measured durations with their spread, and durations between measured sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np

TENTHS = 10
"""The number of equally likely durations that a timing keeps."""


@dataclass(frozen=True)
class Timing:
    """A measured duration with its spread, in seconds.

    Attributes:
        mean_s: mean of all samples but the extremes (see `middle_mean`).
        p10_s: 10th percentile.
        p90_s: 90th percentile.
        samples: number of samples.
        tenths: ten durations that are equally likely: the means of the tenths of the sorted
            samples.
        busy_s: mean of a transfer while all ranks compute; None: not measured.
    """

    mean_s: float
    p10_s: float
    p90_s: float
    samples: int
    tenths: tuple[float, ...]
    busy_s: float | None = None

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """Return the timing of measured samples."""
        low, high = np.percentile(seconds, [10, 90])
        mean, count, ordered = middle_mean(seconds), len(seconds), sorted(seconds)
        edges = [number * count / TENTHS for number in range(TENTHS + 1)]
        tenths = tuple(
            float(np.mean(ordered[int(first) : ceil(last)])) for first, last in pairwise(edges)
        )
        return cls(mean, float(low), float(high), count, tenths)

    @classmethod
    def certain(cls, seconds: float) -> Timing:
        """Return a duration without a spread."""
        return cls(seconds, seconds, seconds, 1, (seconds,) * TENTHS)

    @classmethod
    def parse(cls, data: dict[str, Any]) -> Timing:
        """Return the timing of a JSON object.

        Raises:
            KeyError, TypeError, ValueError: the object is damaged.
        """
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
        """Return the timing with every duration times `factor`."""
        tenths = tuple(seconds * factor for seconds in self.tenths)
        times = (self.mean_s * factor, self.p10_s * factor, self.p90_s * factor)
        busy_s = None if self.busy_s is None else self.busy_s * factor
        return Timing(*times, self.samples, tenths, busy_s)


Points = list[tuple[int, Timing]]


def middle_mean(seconds: Sequence[float]) -> float:
    """Return the mean without the lowest and the highest twentieth.

    It is not the median: a step adds many passes up, and where some are disturbed the sum of
    medians is less than the median of sums.
    """
    cut = len(seconds) // 20
    return float(np.mean(sorted(seconds)[cut : len(seconds) - cut]))


def interpolate(points: Points, nbytes: float) -> Timing:
    """Return the timing for `nbytes` from those of measured sizes.

    It is linear between the sizes; above them the last slope goes on, and nothing takes less
    than the smallest. The spread is that of the nearest size.
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
    """Raise ValueError unless all `values` are finite numbers of 0 or more."""
    for value in values:
        if not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise ValueError(f"{value!r} is not a number of 0 or more")
