"""The microbatches of one rank."""

from __future__ import annotations

from runtime.executor.context import Batches
from runtime.executor.rank import Rank
from runtime.models.batches import microbatch


def batches_of(rank: Rank, iteration: int) -> Batches:
    """Return the microbatches of a rank's replica in all steps of an iteration.

    Ranks without passes have none.
    """
    experiment = rank.experiment
    if not rank.trains:
        return {}
    count, horizon = experiment.parallel.microbatches, experiment.run.horizon
    first = experiment.mesh.replica(rank.number) * count
    return {
        (step, i): microbatch(experiment, iteration * horizon + step, first + i, rank.device)
        for step in range(horizon)
        for i in range(count)
    }
