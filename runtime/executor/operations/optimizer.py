"""The norm of the gradients and the update of the weights, on real tensors."""

from __future__ import annotations

import math

from runtime.executor.context import RankContext
from simulator.program.instruction import Instruction
from simulator.program.tensors import tensor_key

EPSILON = 1e-6
"""Keeps the clipping factor finite, as in `torch.nn.utils.clip_grad_norm_`."""


def gradient_norm(context: RankContext, instruction: Instruction) -> None:
    """Add the squares of a stage's gradients to those of the model."""
    for parameters in context.updated_by(instruction.task):
        context.norm_squared += parameters.gradients_square()


def gradient_factor(context: RankContext) -> float | None:
    """Return what gradients are multiplied with; None if they have overflowed.

    The loss scale is taken out, and their norm limited as `torch.nn.utils.clip_grad_norm_`
    does.
    """
    limit = context.rank.experiment.workload.clip_norm
    if limit is None and not context.loss_scale.dynamic:
        return 1.0  # nobody asks for the norm, for which the host would wait for the device
    norm = context.gradient_norm()
    if not math.isfinite(norm) and context.loss_scale.dynamic:
        return None
    clipped = 1.0 if limit is None else min(1.0, limit / (norm + EPSILON))
    return clipped / context.loss_scale.value


def optimizer_step(context: RankContext, instruction: Instruction) -> None:
    """Update the weights of a stage.

    If the task allocates, the superseded weights are kept for the passes still to come. Where
    arrival decides, nothing happens unless an update is due, which averages what was pushed.
    """
    task = instruction.task
    updated, outcome = context.updated_by(task), context.outcome_of(instruction)
    if not updated or (outcome is not None and not outcome.pushes):
        return
    keep_old, factor = bool(task.allocates), gradient_factor(context)
    if outcome is not None and factor is not None:
        factor /= outcome.pushes
    for parameters in updated:
        gradients = parameters.scaled_gradients(factor or 0.0)
        if context.keep_gradients:
            context.last_gradients[parameters.bucket.name] = gradients.clone()
        if factor is None:
            parameters.zero_gradients()  # they have overflowed
            continue
        parameters.update(context.rank.experiment.run.learning_rate, gradients, keep_old)

    def forget() -> None:
        for parameters in updated:
            parameters.forget(task.version)

    for tensor in task.allocates:
        nbytes = sum(parameters.version_bytes(task.version) for parameters in updated)
        key = tensor_key(tensor.name, instruction.batch)
        context.ledger.hold(key, nbytes, instruction.index, forget)
