"""A model that is nothing but its duration, for studying schedules as such."""

from __future__ import annotations

from simulator.experiment.experiment import Experiment
from simulator.workloads.layer import Layer

MESSAGE_BYTES = 8


def layers(experiment: Experiment) -> list[Layer]:
    """Return one layer per (virtual) stage, with the seconds the user gave."""
    w = experiment.workload
    stage = Layer(
        kind="unit",
        output_shape=(1,),
        output_bytes=MESSAGE_BYTES,
        seconds=(w.forward, w.backward_input, w.backward_weight),
    )
    return [stage] * (experiment.parallel.pipeline * experiment.parallel.virtual_stages)
