"""The learning rate over training steps: as it is given, and as a schedule changes it.

Warm-up is linear (Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 2.2, whose rule for
many workers is "linear" scaling; the square root is that of Krizhevsky 2014, "One weird trick for
parallelizing convolutional neural networks"); "cosine" is that of Loshchilov and Hutter 2017,
"SGDR".
"""

from __future__ import annotations

import math

from simulator.experiment.experiment import Experiment
from simulator.experiment.run import Run
from simulator.experiment.section import ExperimentError

READ_BY = {
    "learning_rate_decay": ("linear", "cosine"),
    "learning_rate_floor": ("linear", "cosine", "plateau"),
    "plateau_period": ("plateau",),
    "plateau_patience": ("plateau",),
    "plateau_factor": ("plateau",),
}
"""The schedules that read a key."""

KEYS = ("learning_rate_schedule", "learning_rate_warmup", "learning_rate_scaling", *READ_BY)


def check_learning_rate(experiment: Experiment) -> None:
    """Refuse keys that the schedule does not read, and a decay of no length.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    run = experiment.run
    for key in KEYS:
        value = getattr(run, key)
        if key not in run.model_fields_set or value is None:
            continue
        if not experiment.workload.family.has_parameters:
            raise ExperimentError(
                f"run.{key} = {value!r}: workload.model = {experiment.workload.model!r} has no "
                "parameters; allowed: unset"
            )
        readers = READ_BY.get(key)
        if readers is not None and run.learning_rate_schedule not in readers:
            raise ExperimentError(
                f"run.{key} = {value!r}: only for run.learning_rate_schedule = "
                f"{' or '.join(map(repr, readers))}, not {run.learning_rate_schedule!r}"
            )
    falls = run.learning_rate_schedule in READ_BY["learning_rate_decay"]
    if falls and run.learning_rate_decay is None:
        raise ExperimentError(
            f"run.learning_rate_schedule = {run.learning_rate_schedule!r}: needs "
            "run.learning_rate_decay, the number of steps that it takes, which is not set"
        )


def scaled_learning_rate(experiment: Experiment) -> float:
    """Return the learning rate for as many workers as share the batch, before any schedule."""
    run, workers = experiment.run, experiment.parallel.batch_shares
    match run.learning_rate_scaling:
        case "linear":
            return run.learning_rate * workers
        case "sqrt":
            return run.learning_rate * math.sqrt(workers)
        case _:
            return run.learning_rate


def share_at(run: Run, step: int) -> float:
    """Return the share of the learning rate that a training step has by its number alone.

    Args:
        run: the schedule.
        step: counted from 0, over iterations and those to get warm.
    """
    warmup = run.learning_rate_warmup
    if step < warmup:
        return (step + 1) / warmup
    if run.learning_rate_decay is None:
        return 1.0
    floor = run.learning_rate_floor or 0.0
    done = min((step - warmup) / run.learning_rate_decay, 1.0)
    left = 1.0 - done if run.learning_rate_schedule == "linear" else _half_wave(done)
    return floor + (1.0 - floor) * left


def _half_wave(done: float) -> float:
    return (1.0 + math.cos(math.pi * done)) / 2.0
