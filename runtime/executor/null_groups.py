"""Communicators without other ranks, for a rank that rehearses its program alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import zip_longest

import torch
from torch import Tensor

from runtime.executor.groups import Groups, Wait
from runtime.executor.host_buffers import is_on_host
from simulator.program.accept_queue import AcceptQueue
from simulator.program.instruction import Instruction
from simulator.program.operations import IN_PLACE, Op
from simulator.program.task import Task

NOISE = 0.02
"""Standard deviation of the noise: that of weights, far from denormal numbers, which are slow."""
ANNOUNCEMENT_BYTES = 8
NOISE_VALUES = 1 << 18
"""So many different values; they are repeated in larger tensors."""


class NullGroups(Groups):
    """Communicators without other ranks: nothing is sent, and what would come is noise.

    Args:
        seconds: how long a transfer lasts nevertheless, by operation (that of a message is
            `Op.SEND`), number of ranks and bytes.
        device: where tensors live.
    """

    def __init__(self, seconds: Callable[[Op, int, int], float], device: torch.device) -> None:
        super().__init__((), 0.0)
        self._seconds = seconds
        self._noise = torch.empty(NOISE_VALUES, device=device).normal_(std=NOISE)

    def announce(self, request: Instruction) -> None:
        """Tell nobody: the request is accepted at once."""

    def hear(self, queue: AcceptQueue, number: int) -> int:
        """Return the requests of all workers in turn, each in the time of a message."""
        time.sleep(self._seconds(Op.SEND, 2, ANNOUNCEMENT_BYTES))
        others = [uids for rank, uids in queue.requests.items() if rank != queue.server]
        rounds = zip_longest(*others, fillvalue=-1)
        return [uid for uids in rounds for uid in uids if uid >= 0][number]

    def send(self, tensor: Tensor, source: int, target: int, tag: int) -> None:
        """Sleep as long as the message would take."""
        time.sleep(self._seconds(Op.SEND, 2, tensor.nbytes))

    def receive(self, tensor: Tensor, source: int, target: int, tag: int) -> None:
        """Fill `tensor` with noise, in the time that the message would take."""
        self._fill(tensor, time.perf_counter() + self._seconds(Op.SEND, 2, tensor.nbytes))

    def collective(self, task: Task, result: Tensor, tensor: Tensor) -> Wait:
        """Begin to fill `result` with noise, in the time that the collective would take.

        What works in place leaves the tensor as it is. Of integers, which may be places, all ranks
        send what this one does.
        """
        end = time.perf_counter() + self._seconds(task.op, len(task.group), task.nbytes)
        if not tensor.is_floating_point():
            result.view(len(task.group), -1).copy_(tensor.view(1, -1))
            return partial(self._fill, None, end)
        return partial(self._fill, result if task.op not in IN_PLACE else None, end)

    def _fill(self, tensor: Tensor | None, end: float) -> None:
        """Put noise into a tensor, until `end`.

        On a host it is copied: to sample it anew would take a core. A device samples it in one
        launch, where copies of a large tensor would keep the host from launching passes.
        """
        if tensor is not None and not is_on_host(tensor):
            tensor.normal_(std=NOISE)
        elif tensor is not None:
            flat = tensor.view(-1)
            for first in range(0, flat.numel(), NOISE_VALUES):
                part = flat[first : first + NOISE_VALUES]
                part.copy_(self._noise[: part.numel()])
        time.sleep(max(end - time.perf_counter(), 0.0))
