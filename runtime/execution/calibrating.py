"""Calibration: what this machine takes for the passes and transfers of an experiment."""

from __future__ import annotations

from runtime.execution.job_start import start
from runtime.launch.job import Job
from runtime.launch.launcher import OnProgress, Workers
from simulator.cluster.profile import Profile
from simulator.cluster.profile_file import parse_profile
from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.strategies.lowering import lower


def calibrate(
    experiment: Experiment,
    on_progress: OnProgress | None = None,
    workers: Workers | None = None,
) -> Profile:
    """Measure what this machine takes for the passes and transfers of an experiment.

    ``keep_profile(profile, path)`` saves the result; ``predict(experiment, cluster_of(profile))``
    uses it.

    Args:
        experiment: what is measured for.
        on_progress: called with the share done (0 to 1) and what is being done.
        workers: processes to use; None: new ones, ended afterwards.

    Raises:
        ExperimentError: there is nothing to measure, or see `run`.
        LaunchError: see `run`.
    """
    check_measurable(experiment)
    job = Job(experiment, measure=False, calibrate=True)
    answer = start(job, lower(experiment), on_progress, workers)
    return parse_profile(answer["profile"])


def check_measurable(experiment: Experiment) -> None:
    """Refuse an experiment whose passes take what it says.

    Raises:
        ExperimentError: its model is `unit`.
    """
    if not experiment.workload.family.has_parameters:
        raise ExperimentError("workload.model = 'unit': has nothing to measure; name another model")
