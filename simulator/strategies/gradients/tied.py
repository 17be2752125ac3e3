"""Tied embeddings: the first and the last stage have the same weights, and sum their gradients.

Each of both updates its own copy with the same sum, so that they stay equal, as in Megatron-LM's
embedding group. In one stage the weights are there once.
"""

from __future__ import annotations

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.strategies.schedules.checks import plan_of_program, updates_within_a_step
from simulator.strategies.schedules.registry import schedule_named

KEY = "workload.tie_embeddings = true"


def tied_ends(experiment: Experiment) -> tuple[int, int] | None:
    """Return the pipeline ranks of the first and the last stage, if these have tied weights."""
    parallel = experiment.parallel
    if not experiment.workload.tie_embeddings or parallel.pipeline * parallel.virtual_stages == 1:
        return None
    placement = schedule_named(parallel.schedule).placement(plan_of_program(experiment))
    return placement[0], placement[-1]


def check_tied(experiment: Experiment) -> None:
    """Refuse tied embeddings where two copies of them could not stay equal.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    parallel, ends = experiment.parallel, tied_ends(experiment)
    if experiment.workload.tie_embeddings and parallel.data_style != "all-reduce":
        raise ExperimentError(
            f"parallel.data_style = {parallel.data_style!r}: with {KEY} gradients are summed over "
            "all that have the weights; allowed: 'all-reduce'"
        )
    if ends is None:
        return
    if ends[0] == ends[1]:
        raise ExperimentError(
            f"parallel.schedule = {parallel.schedule!r}: gives the first and the last stage to one "
            f"rank, which would have the weights of {KEY} twice; allowed: schedules that give "
            "them to two"
        )
    if updates_within_a_step(experiment):
        raise ExperimentError(
            f"parallel.schedule = {parallel.schedule!r}: updates the first and the last stage at "
            f"different times, but {KEY}; allowed: schedules that update once a step"
        )
