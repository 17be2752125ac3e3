"""Collectives, on real tensors: of activations, of flat parameters, of the gradients' norm."""

from __future__ import annotations

import time

from runtime.executor.context import NORM, RankContext
from runtime.executor.parameters import Parameters
from simulator.program.instruction import Instruction
from simulator.program.operations import IN_PLACE, Op
from simulator.program.tensors import tensor_key


def collective(context: RankContext, instruction: Instruction) -> None:
    """Execute a collective, in place or into a new tensor: what the task allocates."""
    task = instruction.task
    parameters = context.parameters_named(task.tensor)
    if parameters is not None:
        _on_parameters(context, instruction, parameters)
    elif task.tensor == NORM:
        context.groups.collective(task, context.norm_squared, context.norm_squared)
    else:
        _on_activations(context, instruction)


def _on_activations(context: RankContext, instruction: Instruction) -> None:
    """Execute a collective on the sum of the tensors that the task reads."""
    task, begin = instruction.task, time.perf_counter()
    tensor = context.add_up(task.sources, instruction.batch).contiguous()
    if task.op in IN_PLACE:
        context.groups.collective(task, tensor, tensor)
        return
    (made,) = task.allocates
    result = context.empty(made.name, made.nbytes)
    context.put(made.name, instruction.batch, result, begin)
    context.groups.collective(task, result.view(-1), tensor.view(-1))


def _on_parameters(context: RankContext, instruction: Instruction, parameters: Parameters) -> None:
    """Execute a collective on flat buffers, in place.

    This rank's part of a whole buffer is what it gives to a gather, or gets of a scatter.
    """
    task, batch, begin = instruction.task, instruction.batch, time.perf_counter()
    if task.op in (Op.ALL_REDUCE, Op.REDUCE):
        context.groups.collective(task, parameters.reduced, parameters.reduced)
        if task.op is Op.REDUCE and context.rank.number != task.root:
            parameters.zero_gradients()  # they are given away, and begin again
    elif task.op is Op.BROADCAST:
        with parameters.gathering() as whole:
            context.groups.collective(task, whole, whole)
    elif task.op is Op.REDUCE_SCATTER:
        whole = parameters.whole_gradients(batch)
        context.groups.collective(task, parameters.shard_of(whole), whole)
        parameters.keep_reduced(batch)
    else:
        with parameters.gathering() as whole:
            for tensor in task.allocates:
                key = tensor_key(tensor.name, batch)
                context.ledger.hold(key, whole.nbytes, begin, parameters.drop_whole)
            context.groups.collective(task, whole, parameters.shard_of(whole))
