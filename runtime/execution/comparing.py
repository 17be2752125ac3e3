"""A prediction and a real run of the same program, and why they differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from runtime.execution.job_start import start
from runtime.execution.peak_flops import peak_flops_of
from runtime.execution.results import Execution, execution_of, round_up
from runtime.keep_profile import with_older
from runtime.launch.job import Job
from runtime.launch.launcher import OnProgress, Workers
from simulator.analysis.comparison import Comparison, compare_timelines
from simulator.cluster.profile import Profile
from simulator.cluster.profile_file import default_path, parse_profile, save_profile
from simulator.cluster.resolve import resolve
from simulator.experiment.experiment import Experiment
from simulator.prediction import Prediction, predict
from simulator.program.operations import Op
from simulator.strategies.lowering import lower
from simulator.workloads.expert_load import loads_of

LEAST_LAG = 0.01
"""A paced run may take so much longer than modelled; less is not worth a slower one."""


@dataclass
class Outcome:
    """A prediction and a real run of the same program, compared.

    Attributes:
        prediction: what was predicted.
        execution: what was measured.
        comparison: the errors and the reason for them.
        notes: what the reader should know of the comparison as a whole.
    """

    prediction: Prediction
    execution: Execution
    comparison: Comparison
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of ``twinline compare`` (see ``docs/json.md``)."""
        return (
            {"predicted": self.prediction.to_json(), "measured": self.execution.to_json()}
            | self.comparison.to_json()
            | {"notes": self.notes}
        )

    def _repr_html_(self) -> str:
        """Return both timelines' figures and their difference as HTML, for notebooks."""
        parts = (self.prediction, self.execution, self.comparison)
        return "".join(part._repr_html_() for part in parts)


def compare(
    experiment: Experiment,
    on_progress: OnProgress | None = None,
    workers: Workers | None = None,
    keep: Path | Literal["saved"] | None = None,
) -> Outcome:
    """Predict an experiment, run it for real, and join the two.

    Unless the experiment names a cluster or is paced, this machine is calibrated in turn
    with the measured steps (machines drift). The steps themselves are no part of the
    calibration.

    Args:
        experiment: what to predict and run.
        on_progress: called with the share done (0 to 1) and what is being done.
        workers: processes to use; None: new ones, ended afterwards.
        keep: file that the profile is added to; ``"saved"``: where this user's profile of this
            machine is saved; None: it is not kept. If it cannot be kept, a note says so.

    Raises:
        ExperimentError: see `run`.
        LaunchError: see `run`.
    """
    if experiment.workload.family.has_experts:
        loads_of(experiment.workload)  # a file that is not there is better found before the run
    program = lower(experiment)
    given = not experiment.workload.family.has_parameters or experiment.is_for_cluster
    # What a profile of this machine does not allow is better refused before the run.
    machine = {"hostname": "this machine", "cores": 1}
    expected = Profile(machine, experiment.run.device, collectives={Op.ALL_REDUCE: {}})
    cluster = resolve(experiment, None if given else expected)
    answer = start(Job(experiment, calibrate=not given), program, on_progress, workers)
    notes: list[str] = []
    profile = None
    if not given:
        profile = parse_profile(answer["profile"])
        if keep is not None:
            path = default_path(experiment) if keep == "saved" else keep
            profile = _kept(profile, path, notes)
        cluster = resolve(experiment, profile)
    prediction = predict(experiment, cluster, program)
    unpaced = not experiment.run.pace and experiment.workload.family.has_parameters
    if experiment.cluster.is_named and unpaced:
        prediction.notes.append(
            f"predicted for {cluster.name}, measured on this machine; run.pace stretches the "
            "run to the cluster's times"
        )
    peak_flops = peak_flops_of(experiment, profile)
    execution = execution_of(experiment, program, peak_flops, answer)
    found = compare_timelines(prediction.timeline, execution.timeline, program)
    if experiment.run.pace and found.iteration_time_error < -LEAST_LAG:
        enough = experiment.run.pace * -found.iteration_time_error / LEAST_LAG
        prediction.notes.append(
            f"the run took {-found.iteration_time_error:.1%} longer than modelled, for real work "
            f"that was late; with run.pace = {round_up(enough):g} it would be about "
            f"{LEAST_LAG:.0%}"
        )
    return Outcome(prediction, execution, found, notes)


def _kept(profile: Profile, path: Path, notes: list[str]) -> Profile:
    """Save `profile` with what an older one has besides; a note says if that is not possible."""
    try:
        profile = with_older(profile, path)
        save_profile(profile, path)
    except OSError as error:
        notes.append(f"the profile could not be kept: {path}: {error.strerror or error}")
    return profile
