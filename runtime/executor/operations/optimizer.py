"""The norm of the gradients and the update of the weights, on real tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from runtime.executor.context import RankContext
from simulator.program.instruction import Instruction
from simulator.program.tensors import tensor_key

EPSILON = 1e-6
"""Keeps the clipping factor finite, as in `torch.nn.utils.clip_grad_norm_`."""


def gradient_norm(context: RankContext, instruction: Instruction) -> None:
    """Add the squares of a stage's gradients to those of the model."""
    for parameters in context.updated_by(instruction.task):
        context.norm_squared += parameters.gradients_square()


def gradient_factor(context: RankContext) -> tuple[Tensor | None, Tensor | None]:
    """Return what gradients are multiplied with (None: 1), and whether they have overflowed.

    The loss scale is taken out, and their norm limited as `torch.nn.utils.clip_grad_norm_`
    does. All of that stays on the device; without a loss scale nobody asks for an overflow (None).
    """
    limit, scale = context.rank.experiment.workload.clip_norm, context.loss_scale.value
    if limit is None and scale is None:
        return None, None
    norm = context.gradient_norm()
    factor = torch.ones_like(norm)
    if limit is not None:
        factor = (limit / (norm + EPSILON)).clamp(max=1.0)
    return (factor, None) if scale is None else (factor / scale, ~norm.isfinite())


def optimizer_step(context: RankContext, instruction: Instruction) -> None:
    """Update the weights of a stage.

    If the task allocates, the superseded weights are kept for the passes still to come. Where
    arrival decides, nothing happens unless an update is due, which averages what was pushed.
    """
    task = instruction.task
    updated, outcome = context.updated_by(task), context.outcome_of(instruction)
    if not updated or (outcome is not None and not outcome.pushes):
        return
    keep_old, learning_rate = bool(task.allocates), context.learning_rate.at(instruction.step)
    factor: float | Tensor | None
    factor, overflow = gradient_factor(context)
    if outcome is not None:
        factor = (1.0 if factor is None else factor) / outcome.pushes
    for parameters in updated:
        gradients = parameters.scaled_gradients(factor)
        if context.keep_gradients:
            context.last_gradients[parameters.bucket.name] = gradients.clone()
        parameters.update(learning_rate, gradients, keep_old, overflow)

    def forget() -> None:
        for parameters in updated:
            parameters.forget(task.version)

    for tensor in task.allocates:
        nbytes = sum(parameters.version_bytes(task.version) for parameters in updated)
        key = tensor_key(tensor.name, instruction.batch)
        context.ledger.hold(key, nbytes, instruction.index, forget)
