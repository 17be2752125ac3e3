"""A calibrated profile: what was measured on one machine, with its spread.

JSON, written by ``twinline calibrate`` and read here without torch. Times are in seconds.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from simulator.experiment import ExperimentError

FORMAT = "twinline-profile-2"

Points = list[tuple[int, float]]


@dataclass
class Timing:
    """A measured duration, seconds: mean of all but the extremes (see `middle_mean`) and
    10th and 90th percentile."""

    mean_s: float
    p10_s: float
    p90_s: float
    samples: int

    @classmethod
    def of(cls, seconds: list[float]) -> Timing:
        low, high = np.percentile(seconds, [10, 90])
        return cls(middle_mean(seconds), float(low), float(high), len(seconds))


def middle_mean(seconds: list[float]) -> float:
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
        passes: per segment pass (see `simulator.costs.pass_key`).
        messages: (bytes, seconds) of a message between two ranks, sizes ascending.
        collectives: the same per operation and group size (bytes as nccl-tests counts them:
            of the larger side).
        issue_s: host time to queue one instruction.
        wake_s: from the end of an instruction to the start of one on another stream that
            waited for it.
        transfer_cores: share of a core that one rank's transfer occupies.
        effective_cores: how many passes at once get as much done as that many alone: less
            than `machine`'s cores where they share caches, memory or their clock. None: equal.
        peak_flops: best matrix product seen per dtype, FLOP/s.
    """

    machine: dict[str, Any]
    device: str = "cpu"
    passes: dict[str, Timing] = field(default_factory=dict)
    messages: Points = field(default_factory=list)
    collectives: dict[str, dict[int, Points]] = field(default_factory=dict)
    issue_s: float = 0.0
    wake_s: float = 0.0
    transfer_cores: float = 0.0
    effective_cores: float | None = None
    peak_flops: dict[str, float] = field(default_factory=dict)

    def message_seconds(self, nbytes: float) -> float:
        return interpolate(self.messages, nbytes)

    def collective_seconds(self, op: str, size: int, nbytes: float) -> float | None:
        """From the points of this operation and group size; without them, the ring formula
        scaled from the nearest size measured, or from all-reduces. None: nothing to go by."""
        known = "ALL_REDUCE" if op not in self.collectives else op
        measured = self.collectives.get(known)
        if not measured:
            return None
        nearest = min(measured, key=lambda other: (abs(other - size), other))
        seconds = interpolate(measured[nearest], nbytes)
        if (known, nearest) == (op, size):
            return seconds
        formula, by = ring_seconds(op, size, nbytes, 1e-4, 1e9), (known, nearest, nbytes)
        return seconds * formula / ring_seconds(*by, 1e-4, 1e9)


def ring_seconds(op: str, size: int, nbytes: float, latency_s: float, bandwidth: float) -> float:
    """An all-reduce takes 2(n-1)/n·bytes/bandwidth + 2(n-1)·latency; each of its halves,
    reduce-scatter and all-gather, and a pairwise all-to-all half of that (Patarasuk & Yuan
    2009; Thakur et al. 2005, section 3)."""
    rounds = (2 if op == "ALL_REDUCE" else 1) * (size - 1)
    return rounds / size * nbytes / bandwidth + rounds * latency_s


def interpolate(points: Points, nbytes: float) -> float:
    """Seconds for `nbytes`: linear between measured sizes, above them by the last slope;
    nothing takes less than the smallest."""
    sizes, times = zip(*points, strict=True)
    if nbytes <= sizes[-1] or len(points) == 1:
        return float(np.interp(nbytes, sizes, times))
    slope = max((times[-1] - times[-2]) / (sizes[-1] - sizes[-2]), 0.0)
    return float(times[-1] + slope * (nbytes - sizes[-1]))


def default_path() -> Path:
    """Where this user's profile of this machine is kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "twinline" / "profile.json"


def save_profile(profile: Profile, path: str | Path) -> None:
    """Write `profile` as JSON, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(
        json.dumps({"format": FORMAT, **asdict(profile)}, indent=1), encoding="utf-8"
    )
    partial.replace(path)


def load_profile(path: str | Path) -> Profile:
    """Read a profile.

    Raises:
        ExperimentError: unreadable or not a profile; one line.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ExperimentError(
            f"cluster.profile = {str(path)!r}: {error.strerror or error}"
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise ExperimentError(f"cluster.profile = {str(path)!r}: truncated or not JSON") from None
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        raise ExperimentError(f"cluster.profile = {str(path)!r}: not a {FORMAT} file")
    try:
        return parse_profile(data)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ExperimentError(
            f"cluster.profile = {str(path)!r}: damaged: {type(error).__name__}: {error}"
        ) from None


def parse_profile(data: dict[str, Any]) -> Profile:
    """A profile from its JSON object; raises KeyError, TypeError or ValueError if damaged."""
    data = dict(data)
    data["passes"] = {key: Timing(**value) for key, value in data["passes"].items()}
    data["messages"] = _points(data["messages"])
    data["collectives"] = {
        str(op): {int(size): _points(points) for size, points in sizes.items()}
        for op, sizes in data["collectives"].items()
    }
    profile = Profile(**data)
    positive = [profile.machine["cores"], *profile.peak_flops.values()]
    if profile.effective_cores is not None:
        positive.append(profile.effective_cores)
    times = [timing.mean_s for timing in profile.passes.values()]
    _check_numbers([*positive, *times, profile.issue_s, profile.wake_s, profile.transfer_cores])
    sizes = [points for sizes in profile.collectives.values() for points in sizes.values()]
    if not all(positive) or not all(sizes):
        raise ValueError("no cores, no FLOP/s, or a group size without points")
    return profile


def _points(rows: list[list[float]]) -> Points:
    points = [(int(size), float(time)) for size, time in rows]
    _check_numbers([time for _, time in points])
    if any(a[0] >= b[0] for a, b in pairwise(points)):
        raise ValueError("sizes do not ascend")
    return points


def _check_numbers(values: list[Any]) -> None:
    for value in values:
        if not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise ValueError(f"{value!r} is not a number of 0 or more")
