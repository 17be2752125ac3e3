"""Synchronous data parallelism: gradients are summed over replicas, bucket by bucket.

The all-reduce of a segment is queued as soon as the last backward pass of that segment
has ended and overlaps the backward pass of the segments before it (Li et al. 2020,
"PyTorch Distributed", section 3.2.3).
"""

from __future__ import annotations

from collections.abc import Sequence

from simulator.program import Instruction, Op, Task
from simulator.workloads import Layer

BACKWARDS = frozenset({Op.BACKWARD, Op.BACKWARD_WEIGHT})


def reduce_gradients(
    instructions: list[Instruction],
    group: tuple[int, ...],
    layers: Sequence[Layer],
    value_bytes: int,
    every: int,
    num_microbatches: int,
) -> list[Instruction]:
    """Insert an all-reduce over `group` after the last backward pass of every segment
    before each update, which come `every` microbatches."""
    if len(group) == 1:
        return instructions
    once = every >= num_microbatches
    last: dict[tuple[tuple[int, int], int], Instruction] = {}
    for instruction in instructions:
        if instruction.task.op in BACKWARDS:
            last[instruction.task.layers, instruction.microbatch // every] = instruction
    final = set(last.values())
    built: list[Instruction] = []
    for instruction in instructions:
        built.append(instruction)
        first, end = instruction.task.layers
        parameters = sum(layer.parameters for layer in layers[first:end])
        if instruction in final and parameters:
            task = Task(
                op=Op.ALL_REDUCE,
                stage=instruction.task.stage,
                layers=(first, end),
                segment=instruction.task.segment,
                mnemonic="REDUCE_GRAD",
                stream="data",
                group=group,
                tensor=f"gradients:{first}",
                nbytes=parameters * value_bytes,
            )
            microbatch = -1 if once else instruction.microbatch
            built.append(Instruction(task, microbatch, (instruction,)))
    return built
