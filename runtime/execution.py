"""From an experiment to a measured timeline, and to its comparison with the prediction."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.launch.job import Job
from runtime.launch.launcher import OnProgress, Workers
from runtime.measurement.merge import Measurement, from_json
from runtime.profiles import keep_profile
from simulator.analysis.comparison import Comparison
from simulator.analysis.comparison import compare as compare_timelines
from simulator.analysis.metrics import metrics_of
from simulator.analysis.results import Result
from simulator.cluster.cluster import Cluster
from simulator.cluster.profile import Profile
from simulator.cluster.profile_file import default_path, parse_profile
from simulator.cluster.resolve import resolve
from simulator.experiment.cluster_choice import ClusterChoice
from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.prediction import Prediction, metadata, predict, saved_profile
from simulator.program.program import Program
from simulator.strategies.lowering import lower
from simulator.timeline.statistics import Statistics, over_iterations
from simulator.workloads.expert_load import loads_of

SPARE = 1.1  # of a pace that is advised
LEAST_LAG = 0.01  # of a paced run; less is not worth a slower one


@dataclass(kw_only=True)
class Execution(Result):
    """A real run.

    Attributes:
        experiment, program: what was run.
        measurement: what the ranks recorded.
    """

    experiment: Experiment
    program: Program
    measurement: Measurement


@dataclass
class Outcome:
    """A prediction and a real run of the same program, compared."""

    prediction: Prediction
    execution: Execution
    comparison: Comparison

    def to_json(self) -> dict[str, Any]:
        """The JSON object of ``twinline compare``."""
        return {
            "predicted": self.prediction.to_json(),
            "measured": self.execution.to_json(),
        } | self.comparison.to_json()

    def _repr_html_(self) -> str:
        """Both timelines' figures and their difference, for notebooks."""
        parts = (self.prediction, self.execution, self.comparison)
        return "".join(part._repr_html_() for part in parts)


def execute(
    experiment: Experiment,
    on_progress: OnProgress | None = None,
    workers: Workers | None = None,
) -> Execution:
    """Run `experiment` on processes of this machine.

    Args:
        on_progress: called with the share done (0 to 1) and what is being done.
        workers: processes to use; None: new ones, ended afterwards.

    Raises:
        ExperimentError: the experiment is wrong, or torch is not installed.
        LaunchError: a rank failed; names the rank and the instruction.
    """
    program, peak_flops = lower(experiment), peak_flops_of(experiment)
    answer = _launch(Job(experiment), on_progress, workers)
    return execution_of(experiment, program, peak_flops, answer)


def peak_flops_of(experiment: Experiment) -> float | None:
    """What MFU of a run is relative to: the cluster that `experiment` names, else this machine's
    profile, else, on CPUs, the laptop preset. None: a GPU of which nothing is known.

    Raises:
        ExperimentError: the cluster cannot hold the plan.
    """
    if experiment.is_for_cluster:
        return _peak_flops(experiment, resolve(experiment))
    profile = saved_profile(experiment)
    if profile is None and experiment.run.device == "cuda":
        return None
    # Nothing else of [cluster] is about a run on this machine.
    choice = ClusterChoice(ranks_per_device=experiment.cluster.ranks_per_device)
    here = experiment.model_copy(update={"cluster": choice})
    return _peak_flops(experiment, resolve(here, profile))


def _peak_flops(experiment: Experiment, cluster: Cluster) -> float | None:
    return cluster.peak_flops(experiment.workload.dtype, experiment.world_size)


def compare(
    experiment: Experiment,
    on_progress: OnProgress | None = None,
    workers: Workers | None = None,
    keep: Path | None = None,
) -> Outcome:
    """Predict and run `experiment`.

    Unless the experiment names a cluster or is paced, this machine is calibrated in turn
    with the measured steps (machines drift), and the profile is kept at `keep` (None: this
    user's cache). The steps themselves are no part of the calibration.
    """
    if experiment.workload.model == "moe-gpt":
        loads_of(experiment.workload)  # a file that is not there is better found before the run
    program = lower(experiment)
    given = experiment.workload.model == "unit" or experiment.is_for_cluster
    # What a profile of this machine does not allow is better refused before the run.
    machine = {"hostname": "this machine", "cores": 1}
    expected = Profile(machine, experiment.run.device, collectives={"ALL_REDUCE": {}})
    cluster = resolve(experiment, None if given else expected)
    answer = _launch(Job(experiment, calibrate=not given), on_progress, workers)
    if not given:
        profile = keep_profile(parse_profile(answer["profile"]), keep or default_path(experiment))
        cluster = resolve(experiment, profile)
    prediction = predict(experiment, cluster, program)
    unpaced = not experiment.run.pace and experiment.workload.model != "unit"
    if experiment.cluster.is_named and unpaced:
        prediction.notes.append(
            f"predicted for {cluster.name}, measured on this machine; run.pace stretches the "
            "run to the cluster's times"
        )
    execution = execution_of(experiment, program, _peak_flops(experiment, cluster), answer)
    found = compare_timelines(prediction.timeline, execution.measurement.timeline, program)
    if experiment.run.pace and found.iteration_time_error < -LEAST_LAG:
        enough = experiment.run.pace * -found.iteration_time_error / LEAST_LAG
        prediction.notes.append(
            f"the run took {-found.iteration_time_error:.1%} longer than modelled, for real work "
            f"that was late; with run.pace = {_round_up(enough):g} it would be about "
            f"{LEAST_LAG:.0%}"
        )
    return Outcome(prediction, execution, found)


def calibrate(
    experiment: Experiment, path: Path | None = None, on_progress: OnProgress | None = None
) -> Profile:
    """Measure this machine for `experiment` and keep the profile at `path` (None: this
    user's cache).
    """
    if experiment.workload.model == "unit":
        raise ExperimentError("workload.model = 'unit': has nothing to measure; name another model")
    answer = _launch(Job(experiment, measure=False, calibrate=True), on_progress, None)
    return keep_profile(parse_profile(answer["profile"]), path or default_path(experiment))


def execution_of(
    experiment: Experiment, program: Program, peak_flops: float | None, answer: dict[str, Any]
) -> Execution:
    """Return what rank 0 answered with its figures, and complete the timeline's metadata.

    Args:
        peak_flops: see `peak_flops_of`.
    """
    measurement = from_json(program, answer["measurement"])
    timeline = measurement.timeline
    figures = over_iterations(measurement.iteration_times).to_json() | {
        "losses": measurement.losses,
        "parameters_norm": measurement.parameters_norm,
        "staleness": measurement.staleness,
    }
    if measurement.moe is not None:
        figures["moe"] = measurement.moe
    if measurement.allocated:
        figures["allocator_peak_bytes"] = measurement.allocated
    if measurement.pacing is not None:
        pace = experiment.run.pace
        figures["pacing"] = measurement.pacing | {
            "needed_pace": pace and _round_up(pace * measurement.pacing["largest_ratio"] * SPARE)
        }
    if measurement.loss_scale is not None:
        figures["loss_scale"] = measurement.loss_scale
    statistics = timeline.statistics = Statistics.from_json(figures)
    source = "measured" if experiment.run.pace is None else "paced"
    timeline.meta = metadata(source, experiment, program) | {
        "iterations": len(measurement.iteration_times),
        "noise_floor": measurement.noise_floor,
        "peak_flops": peak_flops,
    }
    return Execution(
        experiment=experiment,
        program=program,
        measurement=measurement,
        timeline=timeline,
        metrics=metrics_of(timeline, experiment, peak_flops, program.hash(), len(program)),
        staleness=statistics.staleness or [],
        moe=statistics.moe,
        notes=statistics.notes,
    )


def _round_up(value: float) -> float:
    """To two digits."""
    digit = 10.0 ** (math.floor(math.log10(value)) - 1) if value > 0 else 1.0
    return math.ceil(value / digit) * digit


def _launch(job: Job, on_progress: OnProgress | None, workers: Workers | None) -> dict[str, Any]:
    if importlib.util.find_spec("torch") is None:
        raise ExperimentError("torch is not installed: pip install -e '.[runtime]'")
    if workers is not None:
        return workers.run(job, on_progress)
    with Workers(job.experiment.world_size) as own:
        return own.run(job, on_progress)
