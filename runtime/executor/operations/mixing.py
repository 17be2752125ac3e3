"""Parameters follow those of other replicas, on real tensors."""

from __future__ import annotations

from runtime.executor.context import RankContext
from runtime.executor.operations.messages import requested
from simulator.program.instruction import Instruction


def mix(context: RankContext, instruction: Instruction) -> None:
    """Replace parameters by a weighted mean of them and of what neighbours have sent."""
    task, parameters = instruction.task, requested(context, instruction)
    own, *weights = task.coefficients
    mixed = parameters.exchanged.mul_(own)
    for name, weight in zip(task.sources, weights, strict=True):
        mixed.add_(context.tensors[name, instruction.batch], alpha=weight)
    parameters.round()


def snapshot(context: RankContext, instruction: Instruction) -> None:
    """Copy parameters as they are now: into a tensor, or into the weights that passes use."""
    parameters = requested(context, instruction)
    if not instruction.task.allocates:
        parameters.round()
    for made in instruction.task.allocates:
        context.put(made.name, parameters.precise.clone(), instruction)


def outer_step(context: RankContext, instruction: Instruction) -> None:
    """Take a step of the outer optimizer from averaged parameters.

    They are the rank's own, or were averaged beside passes that have updated its own since: then
    these become a weighted mean of the result and of themselves.
    """
    task, parameters = instruction.task, requested(context, instruction)
    learning_rate, momentum, *kept = task.coefficients
    assert task.tensor is not None
    outer, own = context.outer[task.tensor], parameters.precise
    if task.sources:
        averaged = context.add_up(task.sources, instruction.batch)
        outer.step(averaged, learning_rate, momentum)
        own.mul_(kept[0]).add_(averaged, alpha=1.0 - kept[0])
    else:
        outer.step(own, learning_rate, momentum)
    parameters.round()
