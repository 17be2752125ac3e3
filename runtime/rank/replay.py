"""A program executed in one process, in the order of a record: of a run, or of a prediction.

Every rank has its own tensors, and what ranks send each other stays in the process
(`runtime.rank.exchange`). An operation is executed when its predecessors have ended, in an order
that gives the same results as any other one; what depends on the order of arrival is read from the
record. So a run is repeated to the bit, but for sums over more than two ranks, which communication
libraries take in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from runtime.executor.context import RankContext
from runtime.executor.groups import Wait
from runtime.executor.operations.table import OPERATIONS
from runtime.executor.rank import Rank
from runtime.progress import Progress
from runtime.rank.exchange import Exchange
from runtime.rank.input import BatchesOnDemand
from simulator.experiment.experiment import Experiment
from simulator.program.accept_queue import Decision
from simulator.program.instruction import Instruction
from simulator.program.operations import COMMUNICATION, Op
from simulator.program.program import Program
from simulator.program.stream import COMPUTE_STREAM
from simulator.program.walk import Walk

Loss = tuple[int, Tensor]
"""The uid of a forward pass, and its loss."""

CPU = torch.device("cpu")


class Replay:
    """The ranks of a program in this process, iteration after iteration.

    Args:
        experiment: what is executed.
        program: its program, with a list for every rank.

    Attributes:
        contexts: those of all ranks.
    """

    def __init__(self, experiment: Experiment, program: Program) -> None:
        self._experiment, self._program, self._iterations = experiment, program, 0
        ranks = [
            Rank(experiment, program, number, CPU, Progress())
            for number in range(program.num_ranks)
        ]
        exchange = Exchange(())
        self.contexts = [RankContext(rank, exchange) for rank in ranks]

    def iterate(
        self,
        record: Sequence[Decision] = (),
        goes_on: Callable[[int], bool] = lambda uid: True,
        on_end: Callable[[], None] = lambda: None,
    ) -> list[Loss]:
        """Execute the program once; return the losses of the forward passes that have one.

        Args:
            record: decisions about arrivals.
            goes_on: tells of an instruction, by its uid, whether it begins; what waits for one
                that does not, does not either.
            on_end: called after every instruction.

        Raises:
            ValueError: the record is of another program.
        """
        exchange = Exchange(record)
        for context in self.contexts:
            context.groups = exchange
            context.begin(BatchesOnDemand(context.rank, self._iterations), record)
            context.begin_step()
        walk = ReplayWalk(self._program, self.contexts, record, goes_on, on_end)
        walk.complete()
        for stuck in walk.stuck() if not walk.left_out else ():
            raise ValueError(f"{stuck!r} never starts: the record is of another program")
        means = self.mean_losses(walk.losses)
        for context in self.contexts:
            context.end_step()
            context.learning_rate.look(means)
        self._iterations += 1
        return walk.losses

    def mean_losses(self, losses: Sequence[Loss]) -> list[float]:
        """Return the loss of every training step of an iteration, as a run has it."""
        parallel = self._experiment.parallel
        terms = parallel.batch_shares * parallel.context * parallel.microbatches
        means = [0.0] * self._experiment.run.horizon
        for uid, loss in losses:
            forward = self._program.instruction(uid)
            if self.contexts[forward.rank].rank.coordinate["tensor"] == 0:
                means[forward.step] += float(loss) / terms  # tensor ranks have the same
        return means


class ReplayWalk(Walk):
    """A walk that executes what it passes.

    Attributes:
        losses: of forward passes, in the order of execution.
        left_out: something did not begin.
    """

    def __init__(
        self,
        program: Program,
        contexts: Sequence[RankContext],
        record: Sequence[Decision],
        goes_on: Callable[[int], bool],
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(program, record)
        self._contexts, self._goes_on, self._on_end = contexts, goes_on, on_end
        self._listed = list(program)
        self._steps = [0] * len(contexts)
        self.losses: list[Loss] = []
        self.left_out = False

    def begin(self, participants: tuple[int, ...], time: float) -> None:
        """Execute an instruction, or those that meet: whoever sends a message, first."""
        if not self._goes_on(participants[0]):
            self.left_out = True
            return
        members = [self._listed[uid] for uid in participants]
        if len(members) == 2 and members[0].task.op not in COMMUNICATION:
            asked = members.pop(0)  # a local request, which the other one carries out
            self._contexts[asked.rank].receptions[asked.task.queue].come(asked.uid)
        if len(members) == 2 and _receives(members[0], members[1]):
            members.reverse()
        for wait in [self._execute(member) for member in members]:
            if wait is not None:
                wait()
        for member in members:
            if member.task.frees:
                self._contexts[member.rank].release(member).drop()
            self._on_end()
        self.finish(participants, time)

    def _execute(self, instruction: Instruction) -> Wait | None:
        """Execute an instruction, or begin it and return what waits for its end."""
        context, task = self._contexts[instruction.rank], instruction.task
        if task.stream == COMPUTE_STREAM and instruction.step > self._steps[instruction.rank]:
            self._steps[instruction.rank] = instruction.step
            context.end_step()
            context.begin_step()
        wait = OPERATIONS[task.op](context, instruction)
        if context.losses:
            self.losses += [(instruction.uid, loss) for _, loss in context.losses]
            context.losses.clear()
        return wait


def _receives(instruction: Instruction, other: Instruction) -> bool:
    """Tell whether an instruction receives what another one sends."""
    if instruction.task.op is Op.ACCEPT:
        return other.task.op is Op.SEND
    if other.task.op is Op.ACCEPT:
        return instruction.task.op is Op.RECV
    return instruction.task.op is Op.RECV


def replay(
    experiment: Experiment, program: Program, record: Sequence[Sequence[Sequence[int]]]
) -> list[RankContext]:
    """Execute the iterations of a run again; return the contexts of all ranks at its end.

    Args:
        experiment: what was run.
        program: its program; the record is of this one.
        record: the decisions of every iteration, those to get warm included, as pairs of an
            ACCEPT and the request that it served: ``decisions`` in the metadata of its timeline.
            Where nothing is decided by arrival, an empty list for each.
    """
    again = Replay(experiment, program)
    for pairs in record:
        again.iterate([Decision(*pair) for pair in pairs])
    return again.contexts
