"""A run again in one process, with arrivals as they were: its parameters come out to the bit.

Every rank has its own tensors, and messages go through a mailbox. An operation is executed when
its predecessors have ended, in an order that gives the same results as any other one; what depends
on the order of arrival is read from the record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from runtime.executor.context import RankContext
from runtime.executor.groups import Groups
from runtime.executor.operations.table import OPERATIONS
from runtime.executor.rank import Rank
from runtime.progress import Progress
from runtime.rank.input import batches_of
from simulator.experiment.experiment import Experiment
from simulator.program.accept_queue import AcceptQueue, Decision
from simulator.program.instruction import Instruction
from simulator.program.operations import COLLECTIVES, Op
from simulator.program.program import Program
from simulator.program.walk import Walk


class Mailbox(Groups):
    """Communicators of ranks that are all in this process: what is sent lies here until received.

    Args:
        record: what arrival decided.
    """

    def __init__(self, record: Sequence[Decision]) -> None:
        super().__init__((), 0.0)
        self._record = record
        self._served: dict[str, list[int]] = {}  # by queue
        self._letters: dict[tuple[int, int, int], deque[Tensor]] = {}

    def announce(self, request: Instruction) -> None:
        """Tell nobody: the record says who is served."""

    def hear(self, queue: AcceptQueue, number: int) -> int:
        """Return the request that was served as the next one."""
        if queue.name not in self._served:
            served = [made.request for made in self._record if made.request in queue.by_uid]
            self._served[queue.name] = served
        return self._served[queue.name][number]

    def send(self, tensor: Tensor, source: int, target: int, tag: int) -> None:
        """Leave a copy of a tensor for its receiver."""
        self._letters.setdefault((source, target, tag), deque()).append(tensor.clone())

    def receive(self, tensor: Tensor, source: int, target: int, tag: int) -> None:
        """Take the tensor that was left first."""
        tensor.copy_(self._letters[source, target, tag].popleft())


class ReplayWalk(Walk):
    """A walk that executes what it passes."""

    def __init__(
        self, program: Program, contexts: Sequence[RankContext], record: Sequence[Decision]
    ) -> None:
        super().__init__(program, record)
        self._contexts = contexts
        self._listed = list(program)

    def begin(self, participants: tuple[int, ...], time: float) -> None:
        """Execute an instruction, or the two sides of a message: whoever sends, first."""
        members = [self._listed[uid] for uid in participants]
        for instruction in sorted(members, key=lambda member: not _sends(member, members)):
            context = self._contexts[instruction.rank]
            OPERATIONS[instruction.task.op](context, instruction)
            if instruction.task.frees:
                context.release(instruction).drop()
        self.finish(participants, time)


def _sends(instruction: Instruction, members: Sequence[Instruction]) -> bool:
    """Tell whether a participant of a message is the one that sends."""
    if instruction.task.op is Op.ACCEPT:
        return any(member.task.op is Op.RECV for member in members)
    return instruction.task.op is Op.SEND


def replay(
    experiment: Experiment, program: Program, record: Sequence[Sequence[Sequence[int]]]
) -> list[RankContext]:
    """Execute the iterations of a run again; return the contexts of all ranks at its end.

    Args:
        experiment: what was run.
        program: its program, of messages and passes; the record is of this one.
        record: the decisions of every iteration, those to get warm included, as pairs of an
            ACCEPT and the request that it served: ``decisions`` in the metadata of its timeline.

    Raises:
        ValueError: the program has collectives.
    """
    shared = [i for i in program if i.task.op in COLLECTIVES]
    if shared:
        raise ValueError(f"{shared[0]!r} is a collective; a replay has messages only")
    device = torch.device("cpu")
    ranks = [
        Rank(experiment, program, number, device, Progress()) for number in range(program.num_ranks)
    ]
    contexts = [RankContext(rank, Mailbox(())) for rank in ranks]
    for iteration, pairs in enumerate(record):
        decisions = [Decision(*pair) for pair in pairs]
        mailbox = Mailbox(decisions)
        for context in contexts:
            context.groups = mailbox
            context.begin(batches_of(context.rank, iteration), decisions)
        walk = ReplayWalk(program, contexts, decisions)
        walk.complete()
        for stuck in walk.stuck():
            raise ValueError(f"{stuck!r} never starts: the record is of another program")
    return contexts
