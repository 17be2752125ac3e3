"""Values of an experiment that contradict each other, whatever its model and its strategies."""

from __future__ import annotations

from simulator.experiment.experiment import Experiment
from simulator.experiment.mesh import AXES
from simulator.experiment.section import ExperimentError


def check_rank_order(experiment: Experiment) -> None:
    """Refuse an order of ranks that leaves out an axis of the mesh, or has one twice."""
    order = experiment.parallel.rank_order
    if sorted(order) != sorted(AXES):
        raise ExperimentError(
            f"parallel.rank_order = {list(order)}: allowed: the axes "
            f"{', '.join(AXES)}, each once, slowest to fastest varying"
        )


def check_batch(experiment: Experiment) -> None:
    """Refuse a batch of which replicas or microbatches would have unequal shares."""
    parallel = experiment.parallel
    parts = parallel.batch_shares * parallel.microbatches
    if experiment.global_batch % parts:
        names = ["data", *(["expert"] if parallel.expert > 1 else []), "microbatches"]
        factors = " × ".join(str(getattr(parallel, name)) for name in names)
        raise ExperimentError(
            f"workload.global_batch = {experiment.global_batch}: must be a multiple of "
            f"{' × '.join(names)} = {factors} = {parts}; "
            f"nearest: {max(parts, round(experiment.global_batch / parts) * parts)}"
        )


def check_devices(experiment: Experiment) -> None:
    """Refuse NCCL without GPUs, and a shared device where durations are given.

    Nobody slows another where durations are given, so sharing would cost nothing.
    """
    if experiment.run.backend == "nccl" and experiment.run.device == "cpu":
        raise ExperimentError(
            "run.backend = 'nccl': allowed with run.device = 'cpu': 'auto', 'gloo'"
        )
    given = "run.pace" if experiment.run.pace is not None else ""
    given = "workload.model = 'unit'" if experiment.workload.model == "unit" else given
    if given and experiment.cluster.ranks_per_device > 1:
        raise ExperimentError(
            f"cluster.ranks_per_device = {experiment.cluster.ranks_per_device}: allowed with "
            f"{given}: 1"
        )


def check_one_cluster(experiment: Experiment) -> None:
    """Refuse more than one answer to the question which cluster a prediction is for."""
    cluster = experiment.cluster
    given = [key for key in ("preset", "file", "profile") if getattr(cluster, key)]
    if len(given) > 1:
        raise ExperimentError(
            f"cluster.{given[1]} = {getattr(cluster, given[1])!r}: "
            f"cluster.{given[0]} is set too; give one of them"
        )
