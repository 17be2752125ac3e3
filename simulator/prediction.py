"""From an experiment to its predicted timeline, in one call."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

from simulator.cluster import Cluster, resolve
from simulator.costs import CostModel
from simulator.engine import simulate
from simulator.experiment import Experiment, ExperimentError
from simulator.metrics import summarize
from simulator.profile import Profile, default_path, load_profile
from simulator.program import Program
from simulator.routing import predicted_routing
from simulator.staleness import staleness_of
from simulator.strategies import lower, mesh_of
from simulator.timeline import Timeline


@dataclass
class Prediction:
    """A simulated training step.

    Attributes:
        result: the JSON object of ``twinline predict``.
        notes: what the reader should know of it (also in `result`).
    """

    experiment: Experiment
    program: Program
    cluster: Cluster
    timeline: Timeline
    result: dict[str, Any]
    notes: list[str]


def predict(
    experiment: Experiment, cluster: Cluster | None = None, program: Program | None = None
) -> Prediction:
    """Simulate one training step.

    Args:
        cluster: None: what the experiment names, else this machine's saved profile, else
            the laptop preset.
        program: of the experiment, if it has been lowered already.

    Raises:
        ExperimentError: the plan has no program, or the cluster cannot hold it.
    """
    notes: list[str] = []
    if cluster is None:
        cluster = resolve(experiment, saved_profile(experiment, notes))
    program = program or lower(experiment)
    costs = CostModel(program, experiment, cluster)
    timeline = simulate(program, costs)
    timeline.meta = metadata("predicted", experiment, program) | {"cluster": cluster.name}
    if costs.estimated:
        notes.append(
            f"{len(costs.estimated)} segment passes are not in the profile and were estimated; "
            "`twinline calibrate` with this experiment measures them"
        )
    notes += _memory_notes(timeline, cluster)
    peak_flops = cluster.device.peak_flops.get(experiment.workload.dtype)
    result = summarize(timeline, experiment, peak_flops, program.hash(), len(program))
    pipeline = mesh_of(experiment).group(0, "pipeline")
    result["staleness"] = staleness_of(program, list(pipeline))
    if experiment.workload.model == "moe-gpt":
        result["moe"] = predicted_routing(experiment)
    result |= {"cluster": cluster.name, "notes": notes}
    return Prediction(experiment, program, cluster, timeline, result, notes)


def _memory_notes(timeline: Timeline, cluster: Cluster) -> list[str]:
    """Whether the peaks fit: each rank on its device, or all ranks of a host together."""
    peaks = [sample.peak for sample in timeline.memory]
    where, holder = f"rank {peaks.index(max(peaks))}" if peaks else "", "a device"
    needed = max(peaks, default=0)
    if cluster.cores is not None:
        where, holder, needed = f"{len(peaks)} ranks", "one host", sum(peaks)
    if needed <= cluster.device.memory_bytes:
        return []
    available = cluster.device.memory_bytes / 2**30
    return [f"does not fit: {where}: {needed / 2**30:.1f} GiB on {holder} of {available:.0f} GiB"]


def saved_profile(experiment: Experiment, notes: list[str] | None = None) -> Profile | None:
    """The profile kept for this machine, unless the experiment names a cluster or is paced.

    A damaged one is ignored, with a line in `notes`.
    """
    choice, path = experiment.cluster, default_path()
    if choice.preset or choice.profile or experiment.run.pace or not path.exists():
        return None
    try:
        profile = load_profile(path)
    except ExperimentError as error:
        if notes is not None:
            notes.append(f"ignored: {error}")
        return None
    same_host = profile.machine.get("hostname") == socket.gethostname()
    return profile if same_host and profile.device == experiment.run.device else None


def metadata(source: str, experiment: Experiment, program: Program) -> dict[str, Any]:
    """What a saved timeline says of its origin."""
    return {
        "source": source,
        "hash": program.hash(),
        "experiment": experiment.model_dump(exclude_unset=True),
    }
