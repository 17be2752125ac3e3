"""Every rank gets the buckets of its stages, and with them what it holds throughout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from simulator.experiment.experiment import Experiment
from simulator.program.bucket import Bucket
from simulator.strategies.gradients.parameter_layout import BucketRanks
from simulator.strategies.lowered import Lowered
from simulator.strategies.stages.bucket_contents import BucketContents, GradientAxes


def bind_buckets(lowered: Lowered) -> Lowered:
    """Give every rank the buckets of its stages, with the ranks that share them.

    Where replicas update for themselves, those are of one replica only.
    """
    experiment, layout = lowered.experiment, lowered.layout
    workload, is_local = experiment.workload, experiment.parallel.is_local

    def axes_of(contents: BucketContents) -> GradientAxes:
        return contents.axes.without("data") if is_local else contents.axes

    states = workload.optimizer_bytes // workload.dtype_bytes
    buckets: dict[int, list[Bucket]] = {}
    for rank in lowered.ranks:
        mine = [contents for stage in lowered.stages[rank] for contents in lowered.contents[stage]]
        buckets[rank] = [
            bind_bucket(contents, layout.bucket_ranks(axes_of(contents), rank), experiment)
            for contents in mine
        ]
    resident = {rank: resident_bytes(mine, states, rank) for rank, mine in buckets.items()}
    return replace(lowered, buckets=buckets, resident=resident)


def bind_bucket(contents: BucketContents, ranks: BucketRanks, experiment: Experiment) -> Bucket:
    """Return the bucket of a rank: its contents, padded to equal shards, on these ranks."""
    size = max(len(ranks.shards), 1)
    return Bucket(
        contents.segments,
        replicas=ranks.replicas,
        shards=ranks.shards,
        zero=experiment.parallel.zero if ranks.shards else 0,
        copies=ranks.copies,
        tied=contents.axes.tied,
        nbytes=-(-contents.parameters // size) * size * experiment.workload.dtype_bytes,
    )


def resident_bytes(buckets: Sequence[Bucket], states: int, rank: int) -> dict[str, int]:
    """Return what a rank holds throughout (Rajbhandari et al. 2020, figure 1).

    Args:
        buckets: those of the rank.
        states: how many times the size of the parameters the optimizer keeps.
        rank: which rank holds them.
    """
    held = {
        "parameters": [b.part_bytes if b.shards_parameters else b.nbytes for b in buckets],
        "gradients": [b.part_bytes if b.shards_gradients else b.nbytes for b in buckets],
    }
    if states:
        held["optimizer"] = [
            states * (b.part_bytes if b.shards_optimizer else b.nbytes)
            for b in buckets
            if b.is_updated_by(rank)
        ]
    return {name: sum(nbytes) for name, nbytes in held.items()}
