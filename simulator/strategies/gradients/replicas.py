"""Replicas with parameters of their own: what all styles that let them differ have in common."""

from __future__ import annotations

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.program.bucket import Bucket
from simulator.strategies.schedules.checks import updates_within_a_step


def check_replicas(experiment: Experiment) -> None:
    """Refuse plans whose replicas cannot have parameters of their own.

    Raises:
        ExperimentError: with one line that names key, value and what is allowed.
    """
    parallel = experiment.parallel
    asked = f"parallel.data_style = {parallel.data_style!r}"
    if not experiment.workload.family.has_parameters:
        raise ExperimentError(
            f"{asked}: workload.model = {experiment.workload.model!r} has no parameters; "
            "allowed: 'all-reduce'"
        )
    if parallel.axis_size("data") == 1 and parallel.data_style != "diloco":
        raise ExperimentError(
            f"parallel.data = {parallel.data}: with {asked} there is one replica, and nothing to "
            "exchange; allowed: more"
        )
    if parallel.shards_optimizer:
        raise ExperimentError(
            f"parallel.zero = {parallel.zero}: replicas share what is equal in all of them, and "
            f"with {asked} nothing is; allowed: 0"
        )
    if updates_within_a_step(experiment):
        raise ExperimentError(
            f"parallel.schedule = {parallel.schedule!r}: passes of several versions of the "
            f"parameters are under way when {asked} changes them; allowed: synchronous schedules"
        )


def exchanged_bytes(bucket: Bucket, experiment: Experiment) -> int:
    """Return the bytes of parameters as replicas exchange them: of master weights, if any."""
    return bucket.nbytes // experiment.workload.dtype_bytes * exchanged_width(experiment)


def exchanged_width(experiment: Experiment) -> int:
    """Return the bytes of a parameter as replicas exchange it: of a master weight, if any."""
    workload = experiment.workload
    return 4 if workload.has_master_weights else workload.dtype_bytes
