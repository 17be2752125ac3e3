"""Synchronous data parallelism: gradients are summed over replicas, bucket by bucket.

The all-reduce of a segment is queued as soon as the last backward pass of that segment
has ended and overlaps the backward pass of the segments before it (Li et al. 2020,
"PyTorch Distributed", section 3.2.3).
"""

from __future__ import annotations

from collections.abc import Sequence

from simulator.program import Bucket, Instruction, Op, Task

BACKWARDS = frozenset({Op.BACKWARD, Op.BACKWARD_WEIGHT})


def reduce_gradients(
    instructions: list[Instruction],
    buckets: Sequence[Bucket],
    sizes: dict[str, int],
    every: int,
    num_microbatches: int,
) -> list[Instruction]:
    """Insert the all-reduce of every bucket after the last backward pass of its segments
    before each update, which come `every` microbatches.

    Args:
        sizes: bytes of gradients by name of the bucket.
    """
    bucket_of = {
        segment: bucket
        for bucket in buckets
        if len(bucket.sums_over) > 1
        for segment in bucket.segments
    }
    if not bucket_of:
        return instructions
    once = every >= num_microbatches
    last: dict[tuple[Bucket, int], Instruction] = {}
    for instruction in instructions:
        if instruction.task.op in BACKWARDS and instruction.task.layers in bucket_of:
            bucket = bucket_of[instruction.task.layers]
            last[bucket, instruction.microbatch // every] = instruction
    final = set(last.values())
    built: list[Instruction] = []
    for instruction in instructions:
        built.append(instruction)
        if instruction in final:
            bucket = bucket_of[instruction.task.layers]
            task = Task(
                op=Op.ALL_REDUCE,
                stage=instruction.task.stage,
                layers=instruction.task.layers,
                segment=instruction.task.segment,
                mnemonic="REDUCE_GRAD",
                stream="data",
                group=bucket.sums_over,
                tensor=bucket.name,
                nbytes=sizes[bucket.name],
            )
            microbatch = -1 if once else instruction.microbatch
            built.append(Instruction(task, microbatch, (instruction,)))
    return built
