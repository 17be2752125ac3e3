"""The side of a server in messages that meet by arrival, on real tensors."""

from __future__ import annotations

import torch

from runtime.executor.context import RankContext
from runtime.executor.operations.messages import gives_parameters, requested, tag
from runtime.executor.operations.mixing import snapshot
from runtime.executor.operations.optimizer import optimizer_step
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.tensors import WORK

LOCAL = {Op.SNAPSHOT: snapshot, Op.OPTIMIZER_STEP: optimizer_step}
"""The requests of a rank to itself, which its ACCEPT carries out."""


def wait_for_turn(context: RankContext, instruction: Instruction) -> None:
    """Wait until an ACCEPT of this rank has carried out its local request."""
    reception = context.receptions[instruction.task.queue]
    reception.come(instruction.uid)
    reception.wait_for(instruction.uid, context.rank.experiment.run.timeout_s)


def accept(context: RankContext, instruction: Instruction) -> None:
    """Serve the request whose turn it is.

    Gradients that are pushed are added up, parameters averaged with those of this rank; who pulls
    gets parameters, or work. A request of this rank itself is carried out.
    """
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
    if served.rank == number:
        LOCAL[asked.task.op](context, asked)
        context.receptions[task.queue].carried_out(asked.uid)
        return
    parameters = requested(context, asked)
    if not served.is_push:
        context.groups.send(parameters.offered, number, served.rank, tag(asked))
        return
    (made,) = task.allocates
    pushed = context.tensors[made.name, instruction.batch]
    context.groups.receive(pushed, served.rank, number, tag(asked))
    if gives_parameters(asked.task):
        parameters.offered.mul_(0.5).add_(pushed, alpha=0.5)
        return
    if outcome.counts:
        parameters.reduced += pushed
