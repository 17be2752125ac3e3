"""Gradients are clipped by their norm over the whole model (Pascanu et al. 2013, section 3.2).

The same norm tells whether a scaled loss has overflowed, so fp16 needs it, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from simulator.program.operations import Op
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.template import Call
from simulator.strategies.lowered import Lowered


def insert_gradient_norms(lowered: Lowered) -> Lowered:
    """Insert, before the optimizer steps of every rank, the norm that they wait for."""
    return lowered.with_calls(
        lambda rank, calls: with_gradient_norm(calls, lowered.layout.model_ranks(rank))
    )


def with_gradient_norm(calls: Sequence[Call], group: tuple[int, ...]) -> list[Call]:
    """Return `calls` with the norm of the gradient over the whole model.

    The norm of the gradient of each stage is followed by its sum over `group`, for which all
    optimizer steps wait.

    Args:
        calls: those of a rank, its optimizer steps last.
        group: the ranks that hold the parts of one model.
    """
    steps = [call for call in calls if _task(call).op is Op.OPTIMIZER_STEP]
    others = [call for call in calls if _task(call).op is not Op.OPTIMIZER_STEP]
    norms = [
        Call.of_task(
            Task(op=Op.GRADIENT_NORM, stage=_task(step).stage, layers=_task(step).layers),
            arguments=step.arguments,
        )
        for step in steps
    ]
    if len(group) == 1 or not steps:
        return [*others, *norms, *steps]
    task = Task(
        op=Op.ALL_REDUCE,
        stage=_task(norms[-1]).stage,
        mnemonic="REDUCE_NORM",
        stream=Stream.along("model"),
        group=group,
        tensor="norm",
        nbytes=8,
    )
    total = Call.of_task(task)
    waiting = [
        Call.of_task(_task(step), step.microbatch, (*step.arguments, (total, 0))) for step in steps
    ]
    return [*others, *norms, total, *waiting]


def _task(call: Call) -> Task:
    """Return the first task of a call: of an optimizer step, which stands alone, the only one."""
    return call.template.entries[0].task
