"""The speeds of ranks in a real run, which it has by being paced."""

from __future__ import annotations

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError


def check_speeds_are_paced(experiment: Experiment) -> None:
    """Refuse speeds that ranks would not have: instructions are stretched in paced runs only.

    Raises:
        ExperimentError: with one line that names the key.
    """
    cluster = experiment.cluster
    paced = experiment.run.pace is not None or not experiment.workload.family.has_parameters
    if cluster.is_even or paced:
        return
    key = (
        f"slowdown = {dict(cluster.slowdown)}"
        if cluster.slowdown
        else f"jitter = {cluster.jitter!r}"
    )
    raise ExperimentError(f"cluster.{key}: ranks of a real run have such speeds only with run.pace")
