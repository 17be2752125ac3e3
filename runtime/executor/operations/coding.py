"""Gradients, or changes of parameters, are encoded and decoded, on real tensors."""

from __future__ import annotations

import torch

from runtime.executor.context import RankContext
from runtime.executor.operations.messages import requested
from simulator.program.instruction import Instruction


def encode(context: RankContext, instruction: Instruction) -> None:
    """Make what is sent of a bucket in this round: of its gradients, which are all there.

    Of parameters it is their change since all replicas had the same, which stands in their place
    until it is decoded.
    """
    task, parameters = instruction.task, requested(context, instruction)
    assert task.encoding is not None and task.tensor is not None
    values = parameters.gradients
    if task.tensor == parameters.bucket.weights:
        values = parameters.precise
        if task.encoding.round == 0:
            values.sub_(context.coders.reference(task.tensor))
    come = [context.tensors[name, instruction.batch] for name in task.sources]
    coder = context.coders[task.tensor]
    sent = coder.encode(values, task.encoding.round, come)
    for tensor, made in zip(task.allocates, sent, strict=True):
        context.put(tensor.name, made, instruction)


def decode(context: RankContext, instruction: Instruction) -> None:
    """Put the sum of what was sent, or this rank's part of it, in the place of the gradients.

    Or add the mean of what was sent to the parameters that all replicas had.
    """
    task, parameters = instruction.task, requested(context, instruction)
    assert task.tensor is not None
    come = [context.tensors[name, instruction.batch] for name in task.sources]
    coder, reduced = context.coders[task.tensor], parameters.reduced
    if task.tensor == parameters.bucket.weights:
        reference, ranks = context.coders.reference(task.tensor), len(task.group)
        total = coder.total(parameters.precise, come, ranks)
        torch.add(reference, total, alpha=1.0 / ranks, out=parameters.precise)
        context.coders.are_equal(task.tensor, parameters.precise)
        parameters.round()
        return
    total = coder.total(parameters.gradients, come, len(task.group))
    reduced.copy_(total if total.numel() == reduced.numel() else parameters.shard_of(total))
