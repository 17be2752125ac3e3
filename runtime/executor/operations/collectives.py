"""Collectives, on real tensors: of activations, of flat parameters, of the gradients' norm."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from runtime.executor.context import RankContext
from runtime.executor.groups import Wait
from runtime.executor.parameters import Parameters
from simulator.program.instruction import Instruction
from simulator.program.operations import IN_PLACE, Op
from simulator.program.tensors import NORM, TensorKind, tensor_key


def collective(context: RankContext, instruction: Instruction) -> Wait:
    """Begin a collective, in place or into a new tensor: what the task allocates."""
    task = instruction.task
    parameters = context.parameters_named(task.tensor)
    if parameters is not None:
        return _on_parameters(context, instruction, parameters)
    if task.tensor == NORM:
        return context.groups.collective(task, context.norm_squared, context.norm_squared)
    return _on_activations(context, instruction)


def _on_activations(context: RankContext, instruction: Instruction) -> Wait:
    """Begin a collective on the sum of the tensors that the task reads."""
    task = instruction.task
    tensor = context.add_up(task.sources, instruction.batch).contiguous()
    if task.op in IN_PLACE:
        return context.groups.collective(task, tensor, tensor)
    (made,) = task.allocates
    if made.name.kind in (TensorKind.ACTIVATION, TensorKind.GRADIENT):
        result = context.empty(made.name, made.nbytes)
    else:
        result = tensor.new_empty(made.nbytes // tensor.itemsize)
    context.put(made.name, result, instruction)
    return context.groups.collective(task, result.view(-1), tensor.view(-1))


def _on_parameters(context: RankContext, instruction: Instruction, parameters: Parameters) -> Wait:
    """Begin a collective on flat buffers, in place.

    This rank's part of a whole buffer is what it gives to a gather, or gets of a scatter.
    """
    task, batch = instruction.task, instruction.batch
    if task.op is Op.ALL_REDUCE and task.tensor == parameters.bucket.weights:
        whole = parameters.precise
        transfer = context.groups.collective(task, whole, whole)
        return partial(_one_after_the_other, transfer, parameters.round)
    if task.op in (Op.ALL_REDUCE, Op.REDUCE):
        transfer = context.groups.collective(task, parameters.reduced, parameters.reduced)
        if task.op is Op.REDUCE and context.rank.number != task.root:
            # They are given away, and begin again.
            return partial(_one_after_the_other, transfer, parameters.zero_gradients)
        return transfer
    if task.op is Op.REDUCE_SCATTER:
        whole = parameters.whole_gradients(batch)
        transfer = context.groups.collective(task, parameters.shard_of(whole), whole)
        return partial(_one_after_the_other, transfer, partial(parameters.keep_reduced, batch))
    return _on_weights(context, instruction, parameters)


def _on_weights(context: RankContext, instruction: Instruction, parameters: Parameters) -> Wait:
    """Begin a broadcast of whole weights, or to gather them."""
    task, gathering = instruction.task, ExitStack()
    whole = gathering.enter_context(parameters.gathering())
    for tensor in task.allocates:
        key = tensor_key(tensor.name, instruction.batch)
        context.ledger.hold(key, whole.nbytes, instruction.index, parameters.drop_whole)
    given = whole if task.op is Op.BROADCAST else parameters.shard_of(whole)
    transfer = context.groups.collective(task, whole, given)
    return partial(_one_after_the_other, transfer, gathering.close)


def _one_after_the_other(*actions: Wait) -> None:
    for action in actions:
        action()
