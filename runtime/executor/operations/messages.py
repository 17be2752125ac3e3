"""Messages between two ranks, on real tensors."""

from __future__ import annotations

import time

from runtime.executor.context import RankContext
from simulator.program.instruction import Instruction
from simulator.program.tensors import boundary_of


def send(context: RankContext, instruction: Instruction) -> None:
    """Send a tensor, or the sum of those that the task reads."""
    task = instruction.task
    tensor = context.add_up(task.sources or (task.tensor,), instruction.batch)
    context.groups.send(tensor.contiguous(), context.rank.number, task.peer, tag(instruction))


def receive(context: RankContext, instruction: Instruction) -> None:
    """Receive a tensor into memory that is held from now on."""
    task, begin = instruction.task, time.perf_counter()
    tensor = context.empty(task.tensor, task.nbytes)
    context.put(task.tensor, instruction.batch, tensor, begin)
    context.groups.receive(tensor, task.peer, context.rank.number, tag(instruction))


def tag(instruction: Instruction) -> int:
    """Return a number equal on both sides and different for all messages under way."""
    name = instruction.task.tensor
    number = 2 * boundary_of(name) + name.startswith("grad")
    return number * 65536 + (instruction.step * 4099 + instruction.microbatch) % 65536
