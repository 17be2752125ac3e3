"""Gradients, changes of parameters, or their shards, are encoded and decoded, on real tensors."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from runtime.executor.context import RankContext
from runtime.executor.operations.messages import requested
from runtime.executor.parameters import Parameters
from simulator.program.instruction import Instruction
from simulator.program.tensors import tensor_key


def encode(context: RankContext, instruction: Instruction) -> None:
    """Make what is sent of a bucket in this round: of its gradients, which are all there.

    Of parameters it is their change since all replicas had the same, which stands in their place
    until it is decoded. Of whole parameters it is this rank's part.
    """
    task, parameters = instruction.task, requested(context, instruction)
    assert task.encoding is not None and task.tensor is not None
    values = parameters.gradients
    if task.tensor == parameters.bucket.weights:
        values = parameters.precise
        if task.encoding.round == 0:
            values.sub_(context.coders.reference(task.tensor))
    elif task.tensor == parameters.bucket.whole_weights:
        values = parameters.shard
    come = [context.tensors[name, instruction.batch] for name in task.sources]
    coder = context.coders[task.tensor]
    sent = coder.encode(values, task.encoding.round, come)
    for tensor, made in zip(task.allocates, sent, strict=True):
        context.put(tensor.name, made, instruction)


def decode(context: RankContext, instruction: Instruction) -> None:
    """Put the sum of what was sent, or this rank's part of it, in the place of the gradients.

    Or add the mean of what was sent to the parameters that all replicas had; or put the parts that
    were sent, this rank's own, too, together to whole parameters.
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
    if task.tensor == parameters.bucket.whole_weights:
        _put_together(context, instruction, parameters, coder.coder.parts(come, len(task.group)))
        return
    total = coder.total(parameters.gradients, come, len(task.group))
    reduced.copy_(total if total.numel() == reduced.numel() else parameters.shard_of(total))


def _put_together(
    context: RankContext, instruction: Instruction, parameters: Parameters, parts: Iterable[Tensor]
) -> None:
    """Fill whole parameters, which begin here, with parts."""
    (tensor,) = instruction.task.allocates
    with parameters.gathering() as whole:
        key = tensor_key(tensor.name, instruction.batch)
        context.ledger.hold(key, whole.nbytes, instruction.index, parameters.drop_whole)
        for place, part in zip(whole.chunk(len(instruction.task.group)), parts, strict=True):
            place.copy_(part)
