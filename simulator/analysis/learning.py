"""Losses of training over the time of a cluster, over samples, and over bytes sent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from simulator.units import counted, nbytes, seconds

Floats = npt.NDArray[np.float64]

POINTS = 500
"""So many points of a curve ``--json`` prints at most."""

SMOOTHING_STEPS = 10

HEADER = ("plan", "steps", "time", "samples", "sent", "loss")
"""The names of the columns of `Learning.rows`."""


class Reached(NamedTuple):
    """The moment at which a smoothed loss is at the target for the first time.

    Attributes:
        time_s: of the cluster, seconds.
        samples: of which the losses are known by then.
        bytes_sent: by all ranks until then.
    """

    time_s: float
    samples: float
    bytes_sent: float


@dataclass(kw_only=True, repr=False)
class LearningCurve:
    """The losses of one plan: a point for each microbatch, in the order of their times.

    Attributes:
        name: of the plan.
        plan: it, in words.
        cluster: whose time it is.
        workload: in words; losses of others mean something else.
        steps: the training steps of every worker; of a training that a moment has stopped, whole
            ones of all samples until then.
        step_points: the microbatches of a training step, of all workers.
        time_s: of the cluster, seconds, when each loss is known.
        samples, bytes_sent: of all ranks until then.
        loss: of each microbatch.
        smoothing_steps: see `smoothed`.
    """

    name: str
    plan: str
    cluster: str
    workload: str
    steps: int
    step_points: int
    time_s: Floats
    samples: Floats
    bytes_sent: Floats
    loss: Floats
    smoothing_steps: int = SMOOTHING_STEPS

    @cached_property
    def smoothed(self) -> Floats:
        """The mean of the latest losses at each point: of a fifth of all there are by then.

        These are at least those of one step, and at most those of `smoothing_steps`.
        """
        so_far = np.arange(1, self.loss.size + 1)
        step = self.step_points
        return trailing_mean(self.loss, np.clip(so_far // 5, step, step * self.smoothing_steps))

    @property
    def final_loss(self) -> float:
        """The smoothed loss in the end; not a number if there is none."""
        return float(self.smoothed[-1]) if self.loss.size else math.nan

    @property
    def is_finite(self) -> bool:
        """False if the training has diverged."""
        return bool(np.isfinite(self.loss).all())

    def reached(self, target: float) -> Reached | None:
        """Return when the smoothed loss is `target` or less; None: it never is.

        The first training step does not count: one microbatch says little.
        """
        found = np.flatnonzero(self.smoothed[self.step_points - 1 :] <= target)
        if not found.size:
            return None
        at = int(found[0]) + self.step_points - 1
        return Reached(*(float(of[at]) for of in (self.time_s, self.samples, self.bytes_sent)))

    def to_json(self, points: int | None = POINTS) -> dict[str, Any]:
        """Return its figures, and so many of its points at most, evenly over its length."""
        count = self.loss.size
        kept = count if points is None else min(count, points)
        chosen = np.unique(np.linspace(0, count - 1, kept).astype(np.int64))
        columns = {
            "time_s": self.time_s,
            "samples": self.samples,
            "bytes_sent": self.bytes_sent,
            "loss": self.loss,
            "smoothed_loss": self.smoothed,
        }
        last = {name: plain(columns[name][-1:]) for name in ("time_s", "samples", "bytes_sent")}
        return {
            "name": self.name,
            "plan": self.plan,
            "cluster": self.cluster,
            "workload": self.workload,
            "steps": self.steps,
            **{name: value[0] if value else 0.0 for name, value in last.items()},
            "final_loss": plain(np.array([self.final_loss]))[0],
            "curve": {name: plain(column[chosen]) for name, column in columns.items()},
        }


@dataclass(kw_only=True, repr=False)
class Learning:
    """Plans that were trained in the order of their predicted timelines.

    Attributes:
        curves: one for each plan.
        target_loss: the loss that is waited for, if there is one.
        notes: what the reader should know.
    """

    curves: list[LearningCurve]
    target_loss: float | None = None
    notes: list[str] = field(default_factory=list)

    def to_json(self, points: int | None = POINTS) -> dict[str, Any]:
        """Return the JSON object of ``twinline learn`` (see ``docs/json.md``).

        Args:
            points: how many of each curve at most; None: all.
        """
        plans = []
        for curve in self.curves:
            found = None if self.target_loss is None else curve.reached(self.target_loss)
            plans.append(curve.to_json(points) | {"reached": found and found._asdict()})
        return {"target_loss": self.target_loss, "plans": plans, "notes": self.notes}

    def rows(self) -> list[tuple[str, ...]]:
        """Return a row of texts for each plan: what it has done in the end, see `HEADER`."""
        return [
            (
                curve.name,
                f"{curve.steps:,}",
                *_moment(curve.time_s[-1:], curve.samples[-1:], curve.bytes_sent[-1:]),
                f"{curve.final_loss:.4g}",
            )
            for curve in self.curves
        ]

    def target_rows(self) -> list[tuple[str, ...]]:
        """Return a row of texts for each plan, the first to reach the target before the others."""
        if self.target_loss is None:
            return []
        found = [(curve.reached(self.target_loss), curve.name) for curve in self.curves]
        found.sort(key=lambda pair: math.inf if pair[0] is None else pair[0].time_s)
        return [
            (name, *(_moment(*([value] for value in at)) if at else ("not reached", "", "")))
            for at, name in found
        ]

    def __repr__(self) -> str:
        return f"Learning({counted(len(self.curves), 'plan')})"

    def _repr_html_(self) -> str:
        """Return the table of the plans as HTML, for notebooks."""
        tables = [[HEADER, *self.rows()]]
        if self.target_loss is not None:
            tables.append([target_header(self.target_loss), *self.target_rows()])
        return "".join(f"<table>{_html(rows)}</table>" for rows in tables)


def trailing_mean(values: Floats, window: npt.NDArray[np.int64]) -> Floats:
    """Return the mean of the last `window` values at each, of fewer where there are fewer.

    A value that is not finite spoils those that come after it, as it does a training.
    """
    if not values.size:
        return values
    finite = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    last = np.arange(1, values.size + 1)
    first = np.maximum(last - window, 0)
    mean = (total[last] - total[first]) / (last - first)
    return np.where(np.logical_and.accumulate(finite), mean, np.nan)


def plain(values: Floats) -> list[float | None]:
    """Return numbers for JSON, which has none that are not finite."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def target_header(target: float) -> tuple[str, ...]:
    """Return the names of the columns of `Learning.target_rows`."""
    return f"to a loss of {target:g}", *HEADER[2:5]


def _moment(
    time_s: Sequence[float] | Floats,
    samples: Sequence[float] | Floats,
    sent: Sequence[float] | Floats,
) -> tuple[str, ...]:
    """Return a moment in words, of lists of one value; without a value, nothing."""
    if not len(time_s):
        return "", "", ""
    return seconds(float(time_s[0])), f"{samples[0]:,.0f}", nbytes(float(sent[0]))


def _html(rows: Sequence[tuple[str, ...]]) -> str:
    cells = ["".join(f"<td>{escape(text)}</td>" for text in row) for row in rows]
    return "".join(f"<tr>{row}</tr>" for row in cells)
