"""Gradients are clipped by their norm over the whole model (Pascanu et al. 2013, section 3.2).

The same norm tells whether a scaled loss has overflowed, so fp16 needs it, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from simulator.program.operations import Op
from simulator.program.stream import Stream
from simulator.program.task import Task
from simulator.program.template import Call
from simulator.program.tensors import NORM
from simulator.strategies.edits import Edits
from simulator.strategies.gradients.parameter_server import server_ranks
from simulator.strategies.lowered import Lowered


def insert_gradient_norms(lowered: Lowered) -> Lowered:
    """Insert, before the optimizer steps of every rank, the norm that they wait for."""
    servers = tuple(server_ranks(lowered.experiment))

    def insert(rank: int, calls: list[Call]) -> list[Call]:
        if servers and rank not in servers:
            return calls
        return with_gradient_norm(calls, servers or lowered.layout.model_ranks(rank))

    return lowered.with_calls(insert)


def with_gradient_norm(calls: Sequence[Call], group: tuple[int, ...]) -> list[Call]:
    """Return `calls` with the norm of the gradient over the whole model.

    The norm of the gradient of each stage, or of each bucket of a server, is followed by its sum
    over `group`, for which all optimizer steps wait.

    Args:
        calls: those of a rank, all that its optimizer steps wait for before the first of these.
        group: the ranks that hold the parts of one model.
    """
    steps = [call for call in calls if _task(call).op is Op.OPTIMIZER_STEP]
    if not steps:
        return list(calls)
    first = calls.index(steps[0])
    norms = [Call.of_task(_norm(_task(step)), arguments=step.arguments) for step in steps]
    if len(group) == 1:
        return [*calls[:first], *norms, *calls[first:]]
    task = Task(
        op=Op.ALL_REDUCE,
        stage=_task(norms[-1]).stage,
        mnemonic="REDUCE_NORM",
        stream=Stream.along("model"),
        group=group,
        tensor=NORM,
        nbytes=8,
    )
    total, edits = Call.of_task(task), Edits()
    for step in steps:
        edits.wait(step, 0, (total, 0))
    edits.apply()
    return [*calls[:first], *norms, total, *calls[first:]]


def _norm(step: Task) -> Task:
    """Return the norm of the gradients that an optimizer step uses."""
    part = -1 if step.tensor is None else step.tensor.part
    return Task(
        op=Op.GRADIENT_NORM,
        stage=step.stage,
        layers=step.layers,
        segment=step.segment,
        mnemonic="" if part < 0 else f"{Op.GRADIENT_NORM.value}_PART{part}",
        tensor=step.tensor,
        nbytes=step.nbytes,
    )


def _task(call: Call) -> Task:
    """Return the first task of a call: of an optimizer step, which stands alone, the only one."""
    return call.template.entries[0].task
