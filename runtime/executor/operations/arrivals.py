"""The side of a server in messages that meet by arrival, on real tensors."""

from __future__ import annotations

import torch

from runtime.executor.context import RankContext
from runtime.executor.operations.messages import requested, tag
from simulator.program.instruction import Instruction
from simulator.program.tensors import WORK


def accept(context: RankContext, instruction: Instruction) -> None:
    """Serve the request whose turn it is: add up what is pushed, or send parameters or work."""
    task, number = instruction.task, context.rank.number
    for made in task.allocates:
        buffer = context.empty(made.name, made.nbytes)
        context.put(made.name, buffer, instruction)
    timeout_s = context.rank.experiment.run.timeout_s
    served, outcome = context.receptions[task.queue].serve(timeout_s)
    asked = context.rank.program.instruction(served.uid)
    if asked.task.tensor == WORK:
        answer = torch.tensor([outcome.granted], device=context.rank.device)
        context.groups.send(answer, number, served.rank, tag(asked))
        return
    parameters = requested(context, asked)
    if not served.is_push:
        context.groups.send(parameters.values, number, served.rank, tag(asked))
        return
    (made,) = task.allocates
    pushed = context.tensors[made.name, instruction.batch]
    context.groups.receive(pushed, served.rank, number, tag(asked))
    if outcome.counts:
        parameters.reduced += pushed
