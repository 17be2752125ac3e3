"""Parameters are mixed with those of other replicas, on real tensors."""

from __future__ import annotations

from runtime.executor.context import RankContext
from simulator.program.instruction import Instruction


def mix(context: RankContext, instruction: Instruction) -> None:
    """Replace parameters by a weighted mean of them and of what neighbours have sent."""
    task = instruction.task
    parameters = context.parameters_named(task.tensor)
    if parameters is None:
        raise ValueError(f"{task.tensor} is not a bucket of this rank")
    own, *weights = task.coefficients
    mixed = parameters.precise.mul_(own)
    for name, weight in zip(task.sources, weights, strict=True):
        mixed.add_(context.tensors[name, instruction.batch], alpha=weight)
    parameters.round()
