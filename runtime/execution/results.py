"""The result of a real run: what it measured, and the figures of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from runtime.measurement.merge import Measurement, from_json
from simulator.analysis.metrics import metrics_of
from simulator.analysis.results import Result
from simulator.experiment.experiment import Experiment
from simulator.prediction import metadata
from simulator.program.arrival_staleness import arrival_staleness, dropped_pushes
from simulator.program.program import Program
from simulator.timeline.statistics import Statistics, over_iterations

SPARE = 1.1
"""A pace that is advised is so many times the pace that just suffices."""


@dataclass(kw_only=True, repr=False)
class Execution(Result):
    """A real run.

    Attributes:
        experiment, program: what was run.
        measurement: what the ranks recorded.
    """

    experiment: Experiment
    program: Program
    measurement: Measurement


def execution_of(
    experiment: Experiment, program: Program, peak_flops: float | None, answer: dict[str, Any]
) -> Execution:
    """Return the answer of rank 0 with its figures; complete its timeline's metadata.

    Args:
        experiment, program: what was run.
        peak_flops: of one device, see `runtime.execution.peak_flops`.
        answer: of rank 0.
    """
    measurement = from_json(program, answer["measurement"])
    timeline = measurement.timeline
    figures = over_iterations(measurement.iteration_times).to_json() | {
        "losses": measurement.losses,
        "parameters_norm": measurement.parameters_norm,
        "staleness": measurement.staleness,
    }
    if measurement.moe is not None:
        figures["moe"] = measurement.moe
    if measurement.consensus_distance is not None:
        figures["consensus_distance"] = measurement.consensus_distance
    if measurement.allocated:
        figures["allocator_peak_bytes"] = [peaks.held for peaks in measurement.allocated]
        figures["allocator_reserved_bytes"] = [peaks.reserved for peaks in measurement.allocated]
    if measurement.pacing is not None:
        pace = experiment.run.pace
        figures["pacing"] = measurement.pacing | {
            "needed_pace": pace and round_up(pace * measurement.pacing["largest_ratio"] * SPARE)
        }
    if measurement.loss_scale is not None:
        figures["loss_scale"] = measurement.loss_scale
    statistics = timeline.statistics = Statistics.from_json(figures)
    source = "measured" if experiment.run.pace is None else "paced"
    timeline.meta = metadata(source, experiment, program) | {
        "iterations": len(measurement.iteration_times),
        "noise_floor": measurement.noise_floor,
        "peak_flops": peak_flops,
    }
    if measurement.decisions:
        timeline.meta["decisions"] = measurement.decisions
    return Execution(
        experiment=experiment,
        program=program,
        measurement=measurement,
        recorded=timeline,
        metrics=metrics_of(
            timeline,
            experiment,
            peak_flops,
            program.hash(),
            dropped_pushes(program, arrival_staleness(program, timeline.decisions)),
        ),
        staleness=statistics.staleness or [],
        moe=statistics.moe,
        notes=[*statistics.notes, *experiment.notes],
    )


def round_up(value: float) -> float:
    """Return `value` rounded up to two digits."""
    digit = 10.0 ** (math.floor(math.log10(value)) - 1) if value > 0 else 1.0
    return math.ceil(value / digit) * digit
