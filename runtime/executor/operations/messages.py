"""Messages between two ranks, on real tensors."""

from __future__ import annotations

import torch

from runtime.executor.context import RankContext
from runtime.executor.parameters import Parameters
from simulator.program.instruction import Instruction
from simulator.program.task import Task
from simulator.program.tensor_lifetimes import reads_of
from simulator.program.tensors import WORK, TensorKind, activation

BATCH = activation(0)
"""The input of a microbatch, of which rank 0 sends shares."""

GRADIENTS = (TensorKind.GRADIENT, TensorKind.GRADIENTS)


def send(context: RankContext, instruction: Instruction) -> None:
    """Send a tensor, or the sum of those that the task reads; or this replica's parameters."""
    task = instruction.task
    if task.queue:
        _push(context, instruction)
        return
    parameters = context.parameters_named(task.tensor)
    if parameters is not None:
        tensor = parameters.exchanged
    elif task.tensor == BATCH:
        tensor, _ = context.batches[instruction.batch]
    else:
        tensor = context.add_up(reads_of(task), instruction.batch)
    context.groups.send(tensor.contiguous(), context.rank.number, task.peer, tag(instruction))


def receive(context: RankContext, instruction: Instruction) -> None:
    """Receive a tensor into memory that is held from now on."""
    task = instruction.task
    if task.queue:
        ask = _ask_for_work if task.tensor == WORK else _pull
        ask(context, instruction)
        return
    assert task.tensor is not None
    name, parameters = task.tensor, context.parameters_named(task.tensor)
    if name == BATCH:  # in the place of what this rank has made for itself
        tensor = torch.empty_like(context.batches[instruction.batch][0])
        context.received[instruction.batch] = tensor
        context.groups.receive(tensor, task.peer, context.rank.number, tag(instruction))
        return
    if parameters is not None:  # those of another replica, beside this one's
        tensor, name = torch.empty_like(parameters.exchanged), task.allocates[0].name
    else:
        tensor = context.empty(name, task.nbytes)
    context.put(name, tensor, instruction)
    context.groups.receive(tensor, task.peer, context.rank.number, tag(instruction))


def _push(context: RankContext, instruction: Instruction) -> None:
    """Give parameters to who accepts them, or gradients, which begin again from zero."""
    parameters = requested(context, instruction)
    context.groups.announce(instruction)
    peer, number = instruction.task.peer, context.rank.number
    if gives_parameters(instruction.task):
        context.groups.send(parameters.values, number, peer, tag(instruction))
        return
    context.groups.send(parameters.reduced, number, peer, tag(instruction))
    parameters.zero_gradients()


def gives_parameters(task: Task) -> bool:
    """Tell whether what a push gives are parameters, not gradients."""
    return task.tensor is not None and task.tensor.kind is TensorKind.PARAMETERS


def _pull(context: RankContext, instruction: Instruction) -> None:
    """Get parameters from the server that accepts to send them."""
    parameters = requested(context, instruction)
    context.groups.announce(instruction)
    peer, number = instruction.task.peer, context.rank.number
    context.groups.receive(parameters.values, peer, number, tag(instruction))


def _ask_for_work(context: RankContext, instruction: Instruction) -> None:
    """Get the number of a microbatch from the server, unless it has said that there is none."""
    if context.lacks_work(instruction):
        return
    context.groups.announce(instruction)
    answer = torch.zeros(1, dtype=torch.int64, device=context.rank.device)
    context.groups.receive(answer, instruction.task.peer, context.rank.number, tag(instruction))
    context.granted[instruction.batch] = int(answer)


def requested(context: RankContext, request: Instruction) -> Parameters:
    """Return the parameters that a request is for, or whose gradients it has."""
    parameters = context.parameters_named(request.task.tensor)
    if parameters is None:
        raise ValueError(f"{request.task.tensor} is neither parameters nor gradients of this rank")
    return parameters


def tag(instruction: Instruction) -> int:
    """Return a number equal on both sides and different for all messages under way."""
    name = instruction.task.tensor
    assert name is not None
    number = 2 * max(name.boundary, 0) + (name.kind in GRADIENTS)
    return number * 65536 + (instruction.step * 4099 + instruction.microbatch) % 65536
