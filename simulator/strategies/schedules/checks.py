"""A schedule is refused that cannot order a plan, and keys that contradict it."""

from __future__ import annotations

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.strategies.schedules.passes import Plan
from simulator.strategies.schedules.registry import CSV, SCHEDULES, schedule_named
from simulator.strategies.schedules.schedule import is_asynchronous


def plan_of(experiment: Experiment) -> Plan:
    """Return what a schedule is told of an experiment, all but the costs of its stages."""
    parallel = experiment.parallel
    return Plan(
        parallel.pipeline,
        parallel.listed_microbatches,
        parallel.virtual_stages,
        p2p=experiment.workload.p2p,
        memory_limit=parallel.memory_limit,
    )


def plan_of_program(experiment: Experiment) -> Plan:
    """Return what a schedule is told of the whole program.

    An asynchronous schedule does not drain the pipeline between the training steps of
    ``run.horizon``: it orders the microbatches of all of them. Others order those of one.
    """
    plan = plan_of(experiment)
    whole = plan._replace(num_microbatches=plan.num_microbatches * experiment.run.horizon)
    asynchronous = is_asynchronous(schedule_named(experiment.parallel.schedule), whole)
    return whole if asynchronous else plan


def check_schedule(experiment: Experiment) -> None:
    """Refuse a schedule that there is not, that refuses the plan, or a limit it does not read."""
    parallel = experiment.parallel
    schedule = schedule_named(parallel.schedule)
    reads_limit = parallel.schedule not in SCHEDULES and not parallel.schedule.startswith(CSV)
    reads_limit = reads_limit or parallel.schedule == "zb-auto"
    if parallel.memory_limit is not None and not reads_limit:
        raise ExperimentError(
            f"parallel.memory_limit = {parallel.memory_limit:g}: only for parallel.schedule = "
            f"'zb-auto', not {parallel.schedule!r}"
        )
    if refusal := schedule.refusal(plan_of(experiment)):
        raise ExperimentError(f"parallel.schedule = {parallel.schedule!r} with {refusal}")


def updates_within_a_step(experiment: Experiment) -> bool:
    """Tell whether the schedule changes weights while microbatches are in flight."""
    schedule = schedule_named(experiment.parallel.schedule)
    return is_asynchronous(schedule, plan_of_program(experiment))


def check_asynchronous(experiment: Experiment) -> None:
    """Refuse what needs all weights of a step to be the same, if the schedule changes them.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    parallel, name = experiment.parallel, experiment.parallel.schedule
    if not updates_within_a_step(experiment):
        return
    if parallel.has_servers:
        raise ExperimentError(
            f"parallel.data_style = {parallel.data_style!r}: parallel.schedule = {name!r} updates "
            "within a step; allowed: synchronous schedules"
        )
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
