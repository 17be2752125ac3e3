"""Keys about the schedule are refused here, if they are wrong for every plan."""

from __future__ import annotations

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.strategies.schedules.passes import Plan
from simulator.strategies.schedules.registry import CSV, SCHEDULES, schedule_named
from simulator.strategies.schedules.schedule import is_asynchronous


def check_schedule(experiment: Experiment) -> None:
    """Refuse a schedule that there is not, and a limit of memory that it does not read."""
    parallel = experiment.parallel
    schedule_named(parallel.schedule)
    reads_limit = parallel.schedule not in SCHEDULES and not parallel.schedule.startswith(CSV)
    reads_limit = reads_limit or parallel.schedule == "zb-auto"
    if parallel.memory_limit is not None and not reads_limit:
        raise ExperimentError(
            f"parallel.memory_limit = {parallel.memory_limit:g}: only for parallel.schedule = "
            f"'zb-auto', not {parallel.schedule!r}"
        )


def updates_within_a_step(experiment: Experiment) -> bool:
    """Tell whether the schedule changes weights while microbatches are in flight."""
    parallel = experiment.parallel
    plan = Plan(parallel.pipeline, parallel.microbatches, parallel.virtual_stages)
    return is_asynchronous(schedule_named(parallel.schedule), plan)


def check_asynchronous(experiment: Experiment) -> None:
    """Refuse what needs all weights of a step to be the same, if the schedule changes them.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    parallel, name = experiment.parallel, experiment.parallel.schedule
    if not updates_within_a_step(experiment):
        return
    if experiment.workload.clip_norm is not None:
        raise ExperimentError(
            f"workload.clip_norm = {experiment.workload.clip_norm:g}: parallel.schedule = "
            f"{name!r} has no moment at which the gradient of the whole model is known; "
            "allowed: synchronous schedules"
        )
    if experiment.workload.dtype == "fp16":
        raise ExperimentError(
            f"workload.dtype = 'fp16': parallel.schedule = {name!r} updates before all "
            "gradients are known to be finite; allowed: bf16, fp32, fp64, or synchronous schedules"
        )
    if parallel.shards_optimizer:
        raise ExperimentError(
            f"parallel.zero = {parallel.zero}: parallel.schedule = {name!r} keeps "
            "whole weights of several versions; allowed: synchronous schedules"
        )
