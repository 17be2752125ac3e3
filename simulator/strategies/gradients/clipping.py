"""Gradients are clipped by their norm over the whole model (Pascanu et al. 2013, section 3.2).

The same norm tells whether a scaled loss has overflowed, so fp16 needs it, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.task import Task
from simulator.strategies.lowered import Lowered


def insert_gradient_norms(lowered: Lowered) -> Lowered:
    """Insert, before the optimizer steps of every rank, the norm that they wait for."""
    return lowered.with_lists(
        lambda rank, instructions: with_gradient_norm(
            instructions, lowered.layout.model_ranks(rank)
        )
    )


def with_gradient_norm(
    instructions: Sequence[Instruction], group: tuple[int, ...]
) -> list[Instruction]:
    """Return `instructions` with the norm of the gradient over the whole model.

    The norm of the gradient of each stage is followed by its sum over `group`, for which all
    optimizer steps wait.

    Args:
        instructions: those of a rank, its optimizer steps last.
        group: the ranks that hold the parts of one model.
    """
    steps = [i for i in instructions if i.task.op is Op.OPTIMIZER_STEP]
    others = [i for i in instructions if i.task.op is not Op.OPTIMIZER_STEP]
    norms = [
        Instruction(
            Task(op=Op.GRADIENT_NORM, stage=step.task.stage, layers=step.task.layers),
            -1,
            step.after,
        )
        for step in steps
    ]
    if len(group) == 1 or not steps:
        return [*others, *norms, *steps]
    task = Task(
        op=Op.ALL_REDUCE,
        stage=norms[-1].task.stage,
        mnemonic="REDUCE_NORM",
        stream="model",
        group=group,
        tensor="norm",
        nbytes=8,
    )
    total = Instruction(task, -1, norms[-1:])
    for step in steps:
        step.after = (*step.after, total)
    return [*others, *norms, total, *steps]
