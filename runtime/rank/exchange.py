"""Communicators of ranks that are all in one process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial, reduce

import torch
from torch import Tensor

from runtime.executor.groups import Groups, Wait
from simulator.program.accept_queue import AcceptQueue, Decision
from simulator.program.instruction import Instruction
from simulator.program.operations import Op
from simulator.program.task import Task

Part = tuple[Tensor, Tensor]
"""The two tensors of a member of a group: what it gets (not used in place), and what it gives."""


class Exchange(Groups):
    """Communicators of ranks that are all in this process, and call one after the other.

    Messages lie here until they are received. The members of a collective must all call before any
    of them uses the result: the call of the last one carries it out.

    Args:
        record: what arrival decided.
    """

    def __init__(self, record: Sequence[Decision]) -> None:
        super().__init__((), 0.0)
        self._record = record
        self._served: dict[str, list[int]] = {}  # by queue
        self._letters: dict[tuple[int, int, int], deque[Tensor]] = {}
        self._parts: list[Part] = []

    def announce(self, request: Instruction) -> None:
        """Tell nobody: the record says who is served."""

    def hear(self, queue: AcceptQueue, number: int) -> int:
        """Return the request that was served as the next one."""
        if queue.name not in self._served:
            served = [made.request for made in self._record if made.request in queue.by_uid]
            theirs = [uid for uid in served if queue.by_uid[uid].rank != queue.server]
            self._served[queue.name] = theirs
        return self._served[queue.name][number]

    def send(self, tensor: Tensor, source: int, target: int, tag: int) -> None:
        """Leave a copy of a tensor for its receiver."""
        self._letters.setdefault((source, target, tag), deque()).append(tensor.clone())

    def receive(self, tensor: Tensor, source: int, target: int, tag: int) -> None:
        """Take the tensor that was left first."""
        tensor.copy_(self._letters[source, target, tag].popleft())

    def collective(self, task: Task, result: Tensor, tensor: Tensor) -> Wait:
        """Add the part of a member of a group, in the order of the group."""
        self._parts.append((result, tensor))
        if len(self._parts) == len(task.group):
            parts, self._parts = self._parts, []
            EXCHANGES[task.op](task, parts)
        return _wait_for_nothing


def _wait_for_nothing() -> None:
    """Return at once: all is done."""


REDUCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": torch.add,
    "mean": torch.add,  # and then divided, as in a run
    "max": torch.maximum,
}


def _reduced(task: Task, parts: Sequence[Part]) -> Tensor:
    """Return what all members give, reduced in the order of the group."""
    whole = reduce(REDUCTIONS[task.reduction], [given for _, given in parts])
    return whole / len(parts) if task.reduction == "mean" else whole


def _all_reduce(task: Task, parts: Sequence[Part]) -> None:
    whole = _reduced(task, parts)
    for _, given in parts:
        given.copy_(whole)


def _reduce(task: Task, parts: Sequence[Part]) -> None:
    parts[task.group.index(task.root)][1].copy_(_reduced(task, parts))


def _broadcast(task: Task, parts: Sequence[Part]) -> None:
    root = parts[task.group.index(task.root)][1]
    for _, given in parts:
        if given is not root:
            given.copy_(root)


def _all_gather(task: Task, parts: Sequence[Part]) -> None:
    whole = torch.cat([given for _, given in parts])
    for result, _ in parts:
        result.copy_(whole)


def _reduce_scatter(task: Task, parts: Sequence[Part]) -> None:
    pieces = _reduced(task, parts).chunk(len(parts))
    for (result, _), piece in zip(parts, pieces, strict=True):
        result.copy_(piece)


def _all_to_all(task: Task, parts: Sequence[Part]) -> None:
    pieces = [given.chunk(len(parts)) for _, given in parts]
    for number, (result, _) in enumerate(parts):
        result.copy_(torch.cat([of_member[number] for of_member in pieces]))


def _shift(way: int, task: Task, parts: Sequence[Part]) -> None:
    for number, (result, _) in enumerate(parts):
        result.copy_(parts[(number - way) % len(parts)][1])


EXCHANGES: dict[Op, Callable[[Task, Sequence[Part]], None]] = {
    Op.ALL_REDUCE: _all_reduce,
    Op.REDUCE: _reduce,
    Op.BROADCAST: _broadcast,
    Op.ALL_GATHER: _all_gather,
    Op.REDUCE_SCATTER: _reduce_scatter,
    Op.ALL_TO_ALL: _all_to_all,
    Op.SHIFT: partial(_shift, 1),
    Op.SHIFT_BACK: partial(_shift, -1),
}
"""The collectives; each is given the parts of all members, in the order of the group."""
