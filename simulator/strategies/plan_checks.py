"""What an experiment may ask for, beyond the types of its keys. Each check raises
ExperimentError with the key, its value and what is allowed.
"""

from __future__ import annotations

from simulator.experiment.experiment import Experiment
from simulator.experiment.mesh import AXES
from simulator.experiment.parallel import Parallel
from simulator.experiment.section import ExperimentError
from simulator.strategies.schedules.registry import schedule_named


def check_parallel(parallel: Parallel) -> None:
    """The schedule, the order of ranks, and how layers are split."""
    try:
        schedule_named(parallel.schedule)
    except ValueError as error:
        raise ExperimentError(f"parallel.schedule = {parallel.schedule!r}: {error}") from None
    if parallel.memory_limit is not None and parallel.schedule != "zb-auto":
        raise ExperimentError(
            f"parallel.memory_limit = {parallel.memory_limit:g}: only for parallel.schedule = "
            f"'zb-auto', not {parallel.schedule!r}"
        )
    if sorted(parallel.rank_order) != sorted(AXES):
        raise ExperimentError(
            f"parallel.rank_order = {list(parallel.rank_order)}: allowed: the axes "
            f"{', '.join(AXES)}, each once, slowest to fastest varying"
        )
    stages = parallel.pipeline * parallel.virtual_stages
    if parallel.split is not None and len(parallel.split) != stages:
        raise ExperimentError(
            f"parallel.split = {list(parallel.split)}: {len(parallel.split)} numbers; allowed: "
            f"one for each of pipeline × virtual_stages = {stages} stages"
        )


def check_batch(experiment: Experiment) -> None:
    """Every replica has equally many samples in each microbatch."""
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
    """NCCL is for GPUs; and where durations are given, nobody slows another: a shared device
    would cost nothing.
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
