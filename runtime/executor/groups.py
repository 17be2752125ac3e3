"""Process groups, made once per job."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from runtime.executor import host_buffers
from runtime.executor.devices import patience
from runtime.executor.host_buffers import HostBuffers
from runtime.executor.streams import synchronize
from simulator.program.accept_queue import AcceptQueue
from simulator.program.instruction import Instruction
from simulator.program.meetings import participants_of
from simulator.program.operation_columns import Payload
from simulator.program.operations import COLLECTIVES, IN_PLACE, MESSAGES, Op
from simulator.program.program import Program
from simulator.program.stream import Stream
from simulator.program.task import Task

Group = dist.ProcessGroup | None
Wait = Callable[[], object]
"""Waits for the end of what has begun; to be called once."""


def shift(way: int, result: Tensor, tensor: Tensor, group: Group, async_op: bool) -> None:
    """Send to the rank that is `way` further round the group, receive from the other side.

    This blocks, whatever `async_op` says.
    """
    assert group is not None
    ranks = dist.get_process_group_ranks(group)
    position = ranks.index(dist.get_rank())
    messages = [
        dist.P2POp(dist.isend, tensor, ranks[(position + way) % len(ranks)], group),
        dist.P2POp(dist.irecv, result, ranks[(position - way) % len(ranks)], group),
    ]
    for work in dist.batch_isend_irecv(messages):
        work.wait()


def all_reduce(task: Task, tensor: Tensor, group: Group, async_op: bool) -> Any:
    """Reduce `tensor` over the group, on all of its ranks."""
    op = REDUCTIONS[task.reduction]
    return dist.all_reduce(tensor, op=op, group=group, async_op=async_op)


def reduce(task: Task, tensor: Tensor, group: Group, async_op: bool) -> Any:
    """Reduce `tensor` over the group, on the root."""
    op = REDUCTIONS[task.reduction]
    return dist.reduce(tensor, task.root, op=op, group=group, async_op=async_op)


def broadcast(task: Task, tensor: Tensor, group: Group, async_op: bool) -> Any:
    """Give every rank of the group what `tensor` is on the root."""
    return dist.broadcast(tensor, task.root, group=group, async_op=async_op)


INTO_ITSELF: dict[Op, Callable[[Task, Tensor, Group, bool], Any]] = {
    Op.ALL_REDUCE: all_reduce,
    Op.REDUCE: reduce,
    Op.BROADCAST: broadcast,
}
REDUCTIONS = {
    "sum": dist.ReduceOp.SUM,
    "max": dist.ReduceOp.MAX,
    "mean": dist.ReduceOp.SUM,  # and then divided, as gloo has no mean
}
COLLECTIVE: dict[Op, Callable[..., Any]] = {  # torch 2.13 gave two of them new names
    Op.ALL_GATHER: getattr(dist, "all_gather_single", dist.all_gather_into_tensor),
    Op.REDUCE_SCATTER: getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor),
    Op.ALL_TO_ALL: dist.all_to_all_single,
    Op.SHIFT: partial(shift, 1),
    Op.SHIFT_BACK: partial(shift, -1),
}


class Groups:
    """The communicators that programs need; every rank must create them, in the same order.

    Collectives get one per stream and set of ranks. Messages share one communicator on
    gloo, where tags tell them apart; NCCL has no tags and runs a communicator in order, so
    there every ordered pair of ranks gets its own. Requests are announced to servers in a gloo
    communicator of their own, where nothing else can be taken for an announcement.

    Args:
        programs: every program that will be run.
        timeout_s: how long a rank waits for others.
        backend: see `devices.backend_of`. With gloo, tensors of a GPU go through the memory of
            the host.
    """

    def __init__(self, programs: Iterable[Program], timeout_s: float, backend: str = "gloo"):
        self._on_host, self._buffers = backend == "gloo", HostBuffers()
        timeout = patience(timeout_s, backend)
        programs = list(programs)
        collectives: dict[tuple[Stream, tuple[int, ...]], dict[Op, Task]] = {}
        pairs: dict[tuple[int, int], None] = {}
        for instruction in chain.from_iterable(programs):
            task = instruction.task
            if task.op in COLLECTIVES:
                collectives.setdefault((task.stream, task.group), {}).setdefault(task.op, task)
            elif task.op in MESSAGES:
                source, target = participants_of(instruction.rank, task)
                pairs[source, target] = None
        self._collectives: dict[tuple[Stream, tuple[int, ...]], Group] = {
            key: dist.new_group(list(key[1]), timeout=timeout) for key in sorted(collectives)
        }
        self._pairs: dict[tuple[int, int], Group] = {}
        if not self._on_host:
            self._pairs = {
                pair: dist.new_group(sorted(pair), timeout=timeout) for pair in sorted(pairs)
            }

        self._first_tasks = [
            tasks[op] for _, tasks in sorted(collectives.items()) for op in sorted(tasks)
        ]

        names = sorted({queue.name for program in programs for queue in program.queues})
        self._queue_tags = {name: tag for tag, name in enumerate(names)}
        self._announcements = dist.new_group(timeout=timeout, backend="gloo") if names else None

    def warm_up(self, device: torch.device) -> None:
        """Use every communicator once for each of its operations; all ranks in the same order.

        NCCL connects ranks and takes memory when a communicator is first used, which may wait
        for kernels that run; in a step these may be waiting for it.
        """
        rank = dist.get_rank()
        for task in self._first_tasks:
            if rank in task.group:
                whole, part = torch.zeros(len(task.group), device=device), torch.zeros(1).to(device)
                given = part if task.op.row.payload is Payload.GATHERED else whole
                result = (
                    part if task.op.row.payload is Payload.SCATTERED else torch.empty_like(whole)
                )
                self.collective(task, result, given)()
                synchronize(device)
        for source, target in self._pairs:
            if rank in (source, target):
                move = self.send if rank == source else self.receive
                move(torch.zeros(1, device=device), source, target, 0)
                synchronize(device)

    def meet(self, instruction: Instruction) -> bool:
        """Wait on the host until all participants have come to a communication, if NCCL carries it.

        Threads that wait for their instructions launch kernels in no common order. These spin until
        their partners run, so one is launched only when they are all there; and its span begins
        when it does on a GPU as on a host. False: there was nobody to wait for.
        """
        task = instruction.task
        if self._on_host:
            return False
        if task.op in COLLECTIVES:
            group = self._collectives[task.stream, task.group]
        elif task.op in MESSAGES:
            source, target = participants_of(instruction.rank, task)
            group = self._pairs[source, target]
        else:
            return False
        dist.all_reduce(torch.zeros(1), group=group)  # of the host's memory, and so by gloo
        return True

    def announce(self, request: Instruction) -> None:
        """Tell the server of a queue that a request of this rank waits in it."""
        tag = self._queue_tags[request.task.queue]
        mine = torch.tensor([request.uid])
        dist.send(mine, request.task.peer, group=self._announcements, tag=tag)

    def hear(self, queue: AcceptQueue, number: int) -> int:
        """Wait until somebody announces a request to this rank; return its uid.

        Args:
            queue: the one that it waits in.
            number: how many have been heard of before.
        """
        heard = torch.empty(1, dtype=torch.int64)
        dist.recv(heard, None, group=self._announcements, tag=self._queue_tags[queue.name])
        return int(heard)

    def send(self, tensor: Tensor, source: int, target: int, tag: int) -> None:
        """Send `tensor` from this rank, `source`; `tag` tells messages of a step apart."""
        given = self._filled(tensor)
        dist.send(given, target, group=self._pairs.get((source, target)), tag=tag)
        self._done_with(given, tensor)

    def receive(self, tensor: Tensor, source: int, target: int, tag: int) -> None:
        """Receive into `tensor` on this rank, `target`."""
        landed = self._carrier(tensor)
        dist.recv(landed, source, group=self._pairs.get((source, target)), tag=tag)
        self._bring(landed, tensor)

    def collective(self, task: Task, result: Tensor, tensor: Tensor) -> Wait:
        """Begin the collective of `task`.

        Args:
            task: says the operation, the group and the reduction.
            result: what this rank gets; not used by what works in place.
            tensor: what this rank gives; what works in place leaves its result there, a reduce
                on its root only: on other ranks it may leave anything.
        """
        group, later = self._collectives[task.stream, task.group], self._on_host
        given = self._filled(tensor)
        if task.op in IN_PLACE:
            landed, target = given, tensor
            work = INTO_ITSELF[task.op](task, given, group, later)
        else:
            landed, target = self._carrier(result), result
            work = COLLECTIVE[task.op](landed, given, group=group, async_op=later)

        def wait() -> None:
            if work is not None:
                work.wait()
            if task.reduction == "mean":
                landed.div_(len(task.group))
            self._bring(landed, target)
            if given is not landed:
                self._done_with(given, tensor)

        return wait

    def _carrier(self, tensor: Tensor) -> Tensor:
        """Return what the backend can send and fill: the tensor, or a buffer on the host."""
        if not self._on_host or host_buffers.is_on_host(tensor):
            return tensor
        return self._buffers.take(tensor)

    def _filled(self, tensor: Tensor) -> Tensor:
        """Return what the backend can send, with the values of `tensor`."""
        carrier = self._carrier(tensor)
        return carrier if carrier is tensor else carrier.copy_(tensor)

    def _bring(self, landed: Tensor, tensor: Tensor) -> None:
        """Put what has come where it is wanted."""
        if landed is not tensor:
            tensor.copy_(landed)
            self._done_with(landed, tensor)

    def _done_with(self, carrier: Tensor, tensor: Tensor) -> None:
        if carrier is not tensor:
            self._buffers.give_back(carrier)
