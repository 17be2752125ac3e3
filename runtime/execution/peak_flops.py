"""The peak FLOP/s that the MFU of a run is relative to."""

from __future__ import annotations

from simulator.cluster.cluster import Cluster
from simulator.cluster.profile import Profile
from simulator.cluster.resolve import resolve
from simulator.experiment.cluster_choice import ClusterChoice
from simulator.experiment.experiment import Experiment


def peak_flops_of(experiment: Experiment, profile: Profile | None = None) -> float | None:
    """Return the peak FLOP/s of one device in the workload's dtype.

    A paced run, and one on GPUs, is relative to the cluster that `experiment` names. Any other
    is relative to this machine: to `profile`, else, on CPUs, to the laptop preset. A GPU of which
    nothing is known has none.

    Args:
        experiment: the run.
        profile: of this machine.

    Raises:
        ExperimentError: the cluster cannot hold the plan.
    """
    run = experiment.run
    if experiment.is_for_cluster:
        cluster = resolve(experiment)  # a name that does not exist is refused before the run
        if run.pace is not None or run.device == "cuda":
            return _peak_on(experiment, cluster)
    if profile is None and run.device == "cuda":
        return None
    # Nothing else of [cluster] is about a run on this machine.
    choice = ClusterChoice(ranks_per_device=experiment.cluster.ranks_per_device)
    here = experiment.model_copy(update={"cluster": choice})
    return _peak_on(experiment, resolve(here, profile))


def _peak_on(experiment: Experiment, cluster: Cluster) -> float | None:
    """Return the peak FLOP/s of one device of `cluster` in the workload's dtype."""
    return cluster.peak_flops(experiment.workload.dtype, experiment.world_size)
