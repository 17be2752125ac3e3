"""A real run of an experiment on processes of this machine."""

from __future__ import annotations

from typing import Literal

from runtime.execution.job_start import start
from runtime.execution.peak_flops import peak_flops_of
from runtime.execution.results import Execution, execution_of
from runtime.launch.job import Job
from runtime.launch.launcher import OnProgress, Workers
from simulator.cluster.profile import Profile
from simulator.cluster.saved_profile import saved_profile
from simulator.experiment.experiment import Experiment
from simulator.strategies.lowering import lower


def run(
    experiment: Experiment,
    on_progress: OnProgress | None = None,
    workers: Workers | None = None,
    profile: Profile | Literal["saved"] | None = None,
) -> Execution:
    """Run an experiment for real on processes of this machine.

    Args:
        experiment: what to run.
        on_progress: called with the share done (0 to 1) and what is being done.
        workers: processes to use; None: new ones, ended afterwards.
        profile: of this machine, for the peak FLOP/s that MFU refers to; ``"saved"``: the one
            that this user has saved, if there is one; None: the laptop preset on CPUs. A paced
            run, and one on GPUs, refers to the cluster that the experiment names instead.

    Raises:
        ExperimentError: the experiment is wrong, this host's memory cannot hold it, or torch is
            not installed.
        LaunchError: a rank failed; names the rank and the instruction.
    """
    program = lower(experiment)
    known = saved_profile(experiment) if profile == "saved" else profile
    peak_flops = peak_flops_of(experiment, known)
    answer = start(Job(experiment), program, on_progress, workers)
    return execution_of(experiment, program, peak_flops, answer)
