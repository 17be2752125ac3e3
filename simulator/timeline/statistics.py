"""Figures over all iterations of a run, which a timeline of medians does not hold itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.program.staleness import StageStaleness

LISTS = ("losses", "consensus_distance")
"""The figures of single training steps, which may not be finite."""


@dataclass(frozen=True)
class ExpertLoad:
    """The spread of a Mixture of Experts' choices over its experts.

    Attributes:
        dropped_share: choices that find no slot ÷ all choices.
        load: per expert, its choices before any are dropped ÷ all choices, mean over the blocks.
        load_of_blocks: the same for each block.
    """

    dropped_share: float
    load: list[float]
    load_of_blocks: list[list[float]]


@dataclass(frozen=True)
class LossScale:
    """The dynamic loss scale of an fp16 run.

    Attributes:
        value: after the last step.
        skipped_steps: steps since the start, warm-up included, whose gradients had overflowed.
    """

    value: float
    skipped_steps: int


@dataclass(frozen=True)
class PacingReport:
    """The degree to which real work was hidden behind modelled times in a paced run.

    Attributes:
        executions: instructions that the model gives a time, over all ranks and iterations.
        overran: those whose real work was not done when they were due.
        longest_overrun_s: seconds, the most that one was late.
        largest_ratio: the largest of real work (median over the iterations) ÷ modelled time.
        where: the rank and the instruction with that ratio.
        needed_pace: the ``run.pace`` with which that instruction would fit, with a tenth to
            spare; None for the workload ``unit``.
    """

    executions: int
    overran: int
    longest_overrun_s: float
    largest_ratio: float
    where: str
    needed_pace: float | None


@dataclass(frozen=True)
class Statistics:
    """Figures over all iterations of a run, or over all simulated steps of a prediction.

    The fields without a default are there for both, the others for runs only.

    Attributes:
        iteration_time_s: seconds, median of the iterations.
        iteration_time_p10_s, iteration_time_p90_s: seconds, 10th and 90th percentile.
        losses: mean loss over the global batch, per training step of the measured iterations.
        parameters_norm: L2 norm of all parameters after the last iteration.
        staleness: how old the weights were, per stage that has parameters.
        consensus_distance: of replicas with parameters of their own, how far they were apart in
            each training step of the last iteration, when it updates, and at the end.
        moe: the load of experts, for models that have some.
        allocator_peak_bytes: on GPUs, per rank the most that the allocator held for a step,
            median over the iterations.
        allocator_reserved_bytes: the most that it had of the device then.
        pacing: for paced runs.
        loss_scale: for fp16.
    """

    iteration_time_s: float
    iteration_time_p10_s: float
    iteration_time_p90_s: float
    losses: list[float] | None = None
    parameters_norm: float | None = None
    staleness: list[StageStaleness] | None = None
    consensus_distance: list[float] | None = None
    moe: ExpertLoad | None = None
    allocator_peak_bytes: list[int] | None = None
    allocator_reserved_bytes: list[int] | None = None
    pacing: PacingReport | None = None
    loss_scale: LossScale | None = None

    @property
    def notes(self) -> list[str]:
        """Notes for the reader about the run."""
        wrong = [number for number, loss in enumerate(self.losses or ()) if not math.isfinite(loss)]
        if not wrong:
            return []
        return [
            f"the loss is not finite in {len(wrong)} of {len(self.losses or ())} training steps, "
            f"first in step {wrong[0]}"
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the fields that apply under their names; a number that is not finite is None."""
        plain = {name: value for name, value in vars(self).items() if value is not None}
        for name in LISTS:
            if name in plain:
                plain[name] = [finite(value) for value in plain[name]]
        if self.parameters_norm is not None:
            plain["parameters_norm"] = finite(self.parameters_norm)
        if self.staleness is not None:
            plain["staleness"] = [stage.to_json() for stage in self.staleness]
        for name in ("moe", "pacing", "loss_scale"):
            if name in plain:
                plain[name] = dict(vars(plain[name]))
        return plain

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Statistics:
        """Read what `to_json` wrote.

        Raises:
            TypeError, ValueError: a field is missing, unknown or of another type.
        """
        fields = dict(data)
        types = {"moe": ExpertLoad, "pacing": PacingReport, "loss_scale": LossScale}
        for name, of in types.items():
            if name in fields:
                fields[name] = of(**fields[name])
        if "staleness" in fields:
            fields["staleness"] = [StageStaleness.from_json(row) for row in fields["staleness"]]
        for name in LISTS:
            if name in fields:
                fields[name] = [math.nan if one is None else one for one in fields[name]]
        if fields.get("parameters_norm", 0.0) is None:
            fields["parameters_norm"] = math.nan
        found = cls(**fields)
        times = (found.iteration_time_s, found.iteration_time_p10_s, found.iteration_time_p90_s)
        if any(type(time) not in (int, float) for time in times):
            raise ValueError("an iteration time is not a number")
        return found


def finite(value: float) -> float | None:
    """Return `value`, or None if it is infinite or not a number: JSON has no such numbers."""
    return value if math.isfinite(value) else None


def usual_iteration(times: Sequence[float]) -> int:
    """Return which iteration took the median time; of an even number, the shorter of the middle."""
    return sorted(range(len(times)), key=lambda row: times[row])[(len(times) - 1) // 2]


def over_iterations(times: Sequence[float]) -> Statistics:
    """Return the median and the 10th and 90th percentile of iteration times, in seconds."""
    low, middle, high = (float(value) for value in np.percentile(times, [10, 50, 90]))
    return Statistics(middle, low, high)
