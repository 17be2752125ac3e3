"""The servers are the trainers themselves: each updates some of the buckets for all.

Gradients of a bucket are reduced to the one of its replicas that has its optimizer; that steps,
and broadcasts the parameters (Jiang et al. 2020, "A Unified Architecture for Accelerating
Distributed DNN Training in Heterogeneous GPU/CPU Clusters", section 2.2: servers co-located with
workers; torch's `ZeroRedundancyOptimizer` divides an optimizer in the same way). The result is
that of all-reduces, and so is the volume: of V bytes of gradients and parameters each, a trainer
passes on (n - 1)/n of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from simulator.experiment.section import ExperimentError
from simulator.program.bucket import Bucket
from simulator.program.operations import Op
from simulator.program.template import Call, Reference
from simulator.strategies.gradients.parameter_server import (
    Key,
    as_served,
    broadcast_of,
    holding,
    update_of,
)
from simulator.strategies.lowered import Lowered
from simulator.units import counted


def choose_trainers(lowered: Lowered) -> Lowered:
    """Give every bucket one of its replicas as its server, so that these have about equal bytes.

    The largest bucket that is left goes to the one with the fewest bytes.

    Raises:
        ExperimentError: a trainer would have nothing to update.
    """
    sizes: dict[Key, int] = {
        (bucket.segments, bucket.replicas): bucket.nbytes
        for rank in lowered.ranks
        for bucket in lowered.buckets[rank]
    }
    held = dict.fromkeys(lowered.ranks, 0)
    chosen: dict[Key, int] = {}
    for key in sorted(sizes, key=lambda key: (-sizes[key], key)):
        chosen[key] = min(key[1], key=lambda rank: (held[rank], rank))
        held[chosen[key]] += sizes[key]
    if not all(held.values()):
        idle = min(rank for rank, nbytes in held.items() if not nbytes)
        raise ExperimentError(
            f"parallel.servers = 'shared': the gradients of rank {idle} are in "
            f"{counted(len(lowered.buckets[idle]), 'bucket')}, each updated by one of "
            f"{counted(len(lowered.buckets[idle][0].replicas), 'replica')}, so that not every "
            f"rank has one; allowed: a parallel.bucket_mb below "
            f"{lowered.experiment.parallel.bucket_mb:g}"
        )

    def served(bucket: Bucket) -> Bucket:
        one = as_served(bucket, lowered)
        return replace(one, server=chosen[bucket.segments, bucket.replicas])

    buckets = {rank: [served(bucket) for bucket in lowered.buckets[rank]] for rank in lowered.ranks}
    return holding(lowered, buckets)


def update_in_turn(lowered: Lowered) -> Lowered:
    """Let trainers, at the end of a step, update what they serve, and broadcast it.

    All have the buckets in the order in which their gradients are known, which is one for all
    replicas of a bucket.
    """
    return lowered.with_calls(
        lambda rank, calls: _with_updates(rank, calls, {b.name: b for b in lowered.buckets[rank]})
    )


def _with_updates(rank: int, calls: list[Call], buckets: Mapping[object, Bucket]) -> list[Call]:
    built = list(calls)
    reduced: list[Reference] = [
        (call, number)
        for call in calls
        for number in call.template.order
        if call.template.entries[number].task.op is Op.REDUCE
    ]
    for call, number in reduced:
        reduce = call.template.entries[number].task
        bucket = buckets[reduce.tensor]
        waits: list[Reference] = [(call, number)]
        if rank == bucket.server:
            built.append(Call.of_task(update_of(bucket, reduce), arguments=waits))
            waits = [(built[-1], 0)]
        built.append(Call.of_task(broadcast_of(bucket, reduce), arguments=waits))
    return built
