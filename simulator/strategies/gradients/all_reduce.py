"""Synchronous data parallelism: gradients are summed over replicas, bucket by bucket.

The reduction of a bucket is queued as soon as the last backward pass of its segments has
ended and overlaps the backward pass of the segments before it (Li et al. 2020, "PyTorch
Distributed", section 3.2.3). Where a bucket is sharded each rank keeps its part of the sum
(see `simulator.strategies.gradients.zero`).
"""

from __future__ import annotations

from collections.abc import Sequence

from simulator.program.bucket import Bucket
from simulator.program.instruction import Instruction
from simulator.program.operations import LAST_BACKWARDS, Op
from simulator.program.task import Task
from simulator.strategies.lowered import Lowered


def insert_reductions(lowered: Lowered) -> Lowered:
    """Sum the gradients of every bucket over the ranks that share it."""
    plan = lowered.plan
    every = lowered.schedule.updates(plan).every
    return lowered.with_lists(
        lambda rank, instructions: reduce_gradients(
            instructions, lowered.buckets[rank], every, plan.num_microbatches
        )
    )


def reduce_gradients(
    instructions: list[Instruction],
    buckets: Sequence[Bucket],
    every: int,
    num_microbatches: int,
) -> list[Instruction]:
    """Return `instructions` with the reductions of every bucket, behind its last backward pass.

    A whole bucket, and one whose optimizer state alone is sharded, is reduced before each
    update, which come `every` microbatches. One whose gradients are sharded is reduced after
    each microbatch: there is no room to accumulate them.
    """
    reduced = [bucket for bucket in buckets if bucket.shards or len(bucket.replicas) > 1]
    if not reduced:
        return instructions
    ends = _last_backwards(instructions, reduced, 1)
    final = _last_backwards(instructions, reduced, every).keys()
    tasks: dict[tuple[str, Op, int], Task] = {}  # one for all microbatches

    def reduction(op: Op, bucket: Bucket, backward: Task) -> Task:
        key = bucket.name, op, id(backward)
        if key not in tasks:
            tasks[key] = _reduction(op, bucket, backward)
        return tasks[key]

    built: list[Instruction] = []
    for instruction in instructions:
        built.append(instruction)
        bucket, backward = ends.get(instruction), instruction.task
        if bucket is None:
            continue
        after, update = [instruction], instruction.microbatch if every < num_microbatches else -1
        each = bucket.shards_gradients
        if each or (bucket.shards_optimizer and instruction in final):
            scatter = reduction(Op.REDUCE_SCATTER, bucket, backward)
            microbatch = instruction.microbatch if each else update
            after.append(Instruction(scatter, microbatch, after))
        if instruction in final and len(bucket.replicas) > 1:
            after.append(Instruction(reduction(Op.ALL_REDUCE, bucket, backward), update, after))
        built += after[1:]
    return built


def _last_backwards(
    instructions: Sequence[Instruction], buckets: Sequence[Bucket], every: int
) -> dict[Instruction, Bucket]:
    """Return the last backward instruction of each bucket in every `every` microbatches."""
    bucket_of = {segment: bucket for bucket in buckets for segment in bucket.segments}
    last: dict[tuple[str, int], tuple[Instruction, Bucket]] = {}
    for instruction in instructions:
        if instruction.task.op in LAST_BACKWARDS and instruction.task.layers in bucket_of:
            bucket = bucket_of[instruction.task.layers]
            last[bucket.name, instruction.microbatch // every] = (instruction, bucket)
    return dict(last.values())


def _reduction(op: Op, bucket: Bucket, backward: Task) -> Task:
    """Return a sum over the shards, of which each rank keeps its part, or over the replicas."""
    scatters = op is Op.REDUCE_SCATTER
    return Task(
        op=op,
        stage=backward.stage,
        layers=backward.layers,
        segment=backward.segment,
        mnemonic="REDUCE_SHARD" if bucket.shards and not scatters else "REDUCE_GRAD",
        stream="data",
        group=bucket.shards if scatters else bucket.replicas,
        tensor=bucket.name,
        nbytes=bucket.nbytes if scatters else bucket.part_bytes,
        frees=(bucket.name,) if scatters and bucket.shards_gradients else (),
    )
