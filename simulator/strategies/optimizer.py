"""The optimizer step that ends a training step: plain SGD, then gradients are zeroed."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.program import COLLECTIVES, Instruction, Op, Task
from simulator.workloads import Layer


def step(
    instructions: list[Instruction], stages: Sequence[tuple[int, int, int]], layers: Sequence[Layer]
) -> list[Instruction]:
    """Append one step per stage (index, first layer, last layer) that has parameters.

    It waits for the collectives over that stage's gradients.
    """
    built = list(instructions)
    for index, first, last in stages:
        if not any(layer.parameters for layer in layers[first:last]):
            continue
        reduced = [i for i in instructions if i.task.op in COLLECTIVES and i.task.stage == index]
        task = Task(op=Op.OPTIMIZER_STEP, stage=index, layers=(first, last))
        built.append(Instruction(task, after=reduced))
    return built
