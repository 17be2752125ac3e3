"""Parameters follow those of other replicas, on real tensors."""

from __future__ import annotations

from runtime.executor.context import RankContext
from runtime.executor.operations.messages import requested
from simulator.program.instruction import Instruction


def mix(context: RankContext, instruction: Instruction) -> None:
    """Replace parameters by a weighted mean of them and of what neighbours have sent."""
    task, parameters = instruction.task, requested(context, instruction)
    own, *weights = task.coefficients
    mixed = parameters.precise.mul_(own)
    for name, weight in zip(task.sources, weights, strict=True):
        mixed.add_(context.tensors[name, instruction.batch], alpha=weight)
    parameters.round()


def outer_step(context: RankContext, instruction: Instruction) -> None:
    """Take a step of the outer optimizer from averaged parameters."""
    task, parameters = instruction.task, requested(context, instruction)
    learning_rate, momentum = task.coefficients
    assert task.tensor is not None
    context.outer[task.tensor].step(parameters.precise, learning_rate, momentum)
    parameters.round()
