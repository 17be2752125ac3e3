"""Values of an experiment that contradict each other, whatever its model and its strategies."""

from __future__ import annotations

import math

from simulator.experiment.experiment import Experiment
from simulator.experiment.hints import multiples_near, nearest_that_works
from simulator.experiment.mesh import AXES
from simulator.experiment.section import ExperimentError

MOST_MICROBATCHES = 65536


def check_rank_order(experiment: Experiment) -> None:
    """Refuse an order of ranks that leaves out an axis of the mesh, or has one twice."""
    order = experiment.parallel.rank_order
    if sorted(order) != sorted(AXES):
        raise ExperimentError(
            f"parallel.rank_order = {list(order)}: allowed: the axes "
            f"{', '.join(AXES)}, each once, slowest to fastest varying"
        )


def check_expert_ranks(experiment: Experiment) -> None:
    """Refuse expert ranks inside data-parallel ones that do not divide them."""
    parallel = experiment.parallel
    if parallel.expert_inside_data and parallel.data % parallel.expert:
        hint = nearest_that_works(
            experiment, "parallel", "data", multiples_near(parallel.expert, parallel.data)
        )
        raise ExperimentError(
            f"parallel.data = {parallel.data}: must be a multiple of parallel.expert = "
            f"{parallel.expert} with parallel.expert_inside_data = true; {hint}"
        )


def check_batch(experiment: Experiment) -> None:
    """Refuse a batch of which replicas or microbatches would have unequal shares."""
    parallel, batch = experiment.parallel, experiment.global_batch
    size, last = parallel.microbatch_size, "microbatches"
    if size is not None and last not in parallel.model_fields_set:
        last = "microbatch_size"
    factors = [getattr(parallel, name) for name in (*parallel.batch_axes, last)]
    names = " × ".join((*parallel.batch_axes, last))
    each = math.prod(factors)
    if batch % each:
        hint = nearest_that_works(
            experiment, "workload", "global_batch", multiples_near(each, batch)
        )
        raise ExperimentError(
            f"workload.global_batch = {batch}: must be a multiple of {names} = "
            f"{' × '.join(map(str, factors))} = {each}; {hint}"
        )
    if parallel.microbatches > MOST_MICROBATCHES:
        raise ExperimentError(
            f"parallel.microbatch_size = {size}: {parallel.microbatches} microbatches; allowed: "
            f"{MOST_MICROBATCHES} or fewer"
        )
    if size is not None and size != experiment.microbatch_size:
        raise ExperimentError(
            f"parallel.microbatch_size = {size}: workload.global_batch ÷ ({names}) = {batch} ÷ "
            f"{each} = {experiment.microbatch_size}; give two of the three"
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
    if not experiment.workload.family.has_parameters:
        given = f"workload.model = {experiment.workload.model!r}"
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


def check_speeds(experiment: Experiment) -> None:
    """Refuse speeds of ranks that do not exist, and spreads that mean nothing."""
    cluster, last = experiment.cluster, experiment.world_size - 1
    for rank, _ in cluster.slowdown:
        if rank > last:
            raise ExperimentError(
                f"cluster.slowdown of rank {rank}: this plan has ranks 0 to {last}"
            )
    if cluster.jitter == "none":
        for key in ("jitter_spread", "jitter_seed"):
            if getattr(cluster, key) is not None:
                raise ExperimentError(
                    f"cluster.{key} = {getattr(cluster, key)}: only with cluster.jitter"
                )
    elif cluster.jitter_spread is None:
        raise ExperimentError(
            f"cluster.jitter = {cluster.jitter!r}: needs cluster.jitter_spread, which is not set"
        )
    elif cluster.jitter == "shifted-exponential" and cluster.jitter_spread > 1:
        raise ExperimentError(
            f"cluster.jitter_spread = {cluster.jitter_spread:g}: a shifted exponential "
            "distribution with a mean of 1 begins below 0; allowed: at most 1"
        )
