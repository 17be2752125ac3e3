"""Synchronous data parallelism: gradients are summed over replicas, bucket by bucket.

The reduction of a bucket is queued as soon as the last backward pass of its segments has
ended and overlaps the backward pass of the segments before it (Li et al. 2020, "PyTorch
Distributed", section 3.2.3). Where a bucket is sharded each rank keeps its part of the sum
(see `simulator.strategies.gradients.zero`); where it has a server, that gets the sum (see
`simulator.strategies.gradients.parameter_server`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from simulator.program.bucket import Bucket
from simulator.program.operations import LAST_BACKWARDS, Op
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.template import Call, Entry, Template, Variants
from simulator.program.tensors import TensorName
from simulator.strategies.gradients.parameter_server import server_traffic
from simulator.strategies.lowered import Lowered


def insert_reductions(lowered: Lowered) -> Lowered:
    """Sum the gradients of every bucket over the ranks that share it."""
    plan = lowered.plan
    every = lowered.schedule.updates(plan).every
    return lowered.with_calls(
        lambda rank, calls: reduce_gradients(
            calls, lowered.buckets[rank], every, plan.num_microbatches
        )
    )


def reduce_gradients(
    calls: list[Call], buckets: Sequence[Bucket], every: int, num_microbatches: int
) -> list[Call]:
    """Return `calls` with the reductions of every bucket, behind its last backward pass.

    A whole bucket, and one whose optimizer state alone is sharded, is reduced before each
    update, which come `every` microbatches. One whose gradients are sharded is reduced after
    each microbatch: there is no room to accumulate them.
    """
    reduced = [
        bucket
        for bucket in buckets
        if bucket.shards or bucket.server is not None or len(bucket.replicas) > 1
    ]
    bucket_of = {segment: bucket for bucket in reduced for segment in bucket.segments}
    ends: dict[Template, list[tuple[int, Bucket]]] = {}
    last: dict[tuple[TensorName, int], Call] = {}  # by bucket and update
    for call in calls:
        if call.template not in ends:
            ends[call.template] = _last_backwards(call.template, bucket_of)
        for _, bucket in ends[call.template]:
            last[bucket.name, call.microbatch // every] = call
    variants = Variants()
    shift = 0 if every < num_microbatches else None
    for call in calls:
        template, mine = call.template, ends[call.template]
        final = [last[bucket.name, call.microbatch // every] is call for _, bucket in mine]
        call.template = variants.get(
            template, tuple(final), partial(_with_reductions, template, mine, final, shift)
        )
    return calls


def _last_backwards(
    template: Template, bucket_of: Mapping[tuple[int, int], Bucket]
) -> list[tuple[int, Bucket]]:
    """Return the last backward entry of each bucket in a template, in order."""
    last: dict[TensorName, tuple[int, Bucket]] = {}
    for number in template.computes:
        task = template.entries[number].task
        if task.op in LAST_BACKWARDS and task.layers in bucket_of:
            bucket = bucket_of[task.layers]
            last[bucket.name] = (number, bucket)
    return list(last.values())


def _with_reductions(
    template: Template,
    ends: Sequence[tuple[int, Bucket]],
    final: Sequence[bool],
    shift: int | None,
) -> Template:
    """Return a template with the reductions of the buckets that end in it.

    Args:
        template: of a backward pass.
        ends: the last entry of each bucket.
        final: whether it is the last one before an update.
        shift: of the reductions before an update.
    """
    inserted: list[tuple[int, Entry]] = []
    for (number, bucket), is_final in zip(ends, final, strict=True):
        backward, waits = template.entries[number].task, [number]
        each = bucket.shards_gradients
        if each or (bucket.shards_optimizer and is_final):
            scatter = _reduction(Op.REDUCE_SCATTER, bucket, backward)
            inserted.append((number, Entry(scatter, tuple(waits), 0 if each else shift)))
            waits.append(len(template.entries) + len(inserted) - 1)
        after: Iterable[Task] = ()
        if is_final and bucket.server is not None:
            after = server_traffic(bucket, backward)
        elif is_final and len(bucket.replicas) > 1:
            after = [_reduction(Op.ALL_REDUCE, bucket, backward)]
        # What both ends of a pipeline sum waits for the slower one, behind everything else.
        place = template.order[-1] if bucket.is_at_both_ends else number
        for task in after:
            inserted.append((place, Entry(task, tuple(waits), shift)))
            waits.append(len(template.entries) + len(inserted) - 1)
    return template.changed(inserted=inserted)


def _reduction(op: Op, bucket: Bucket, backward: Task) -> Task:
    """Return a sum over the shards, of which each rank keeps its part, or over the replicas."""
    scatters = op is Op.REDUCE_SCATTER
    mnemonic = "REDUCE_SHARD" if bucket.shards and not scatters else "REDUCE_GRAD"
    across = bucket.is_at_both_ends and not scatters
    return Task(
        op=op,
        stage=backward.stage,
        layers=backward.layers,
        segment=backward.segment,
        mnemonic="REDUCE_TIED" if across else mnemonic,
        stream=Stream.along("tied" if across else "data"),
        group=bucket.shards if scatters else bucket.replicas,
        tensor=bucket.name,
        nbytes=bucket.nbytes if scatters else bucket.part_bytes,
        frees=(bucket.name,) if scatters and bucket.shards_gradients else (),
    )
