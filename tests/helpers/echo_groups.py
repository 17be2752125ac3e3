"""Communicators of one rank whose partners would send what it has itself: results are known."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from runtime.executor.groups import Wait
from runtime.executor.null_groups import NullGroups
from simulator.program.operations import IN_PLACE, Op
from simulator.program.task import Task


class EchoGroups(NullGroups):
    """Sums are multiples, gathers repeat, and messages have values that their tag decides.

    Every result is written at the end of a transfer only, and nowhere before.

    Attributes:
        sent: sums of the values of what was sent, by tag.
        block: while it is set, messages do not come.
    """

    def __init__(self) -> None:
        super().__init__(lambda op, size, nbytes: 0.0, torch.device("cpu"))
        self.sent: dict[int, float] = {}
        self.block = threading.Event()

    def send(self, tensor: Tensor, source: int, target: int, tag: int) -> None:
        """Note what is sent."""
        self.sent[tag] = float(tensor.double().sum())

    def receive(self, tensor: Tensor, source: int, target: int, tag: int) -> None:
        """Fill `tensor` with values of its own."""
        while self.block.is_set():
            self.block.wait(0.01)
        tensor.fill_(torch.nan)
        values = torch.arange(tensor.numel(), dtype=tensor.dtype) * 0.01 + tag % 7
        tensor.copy_(values.view(tensor.shape).sin())

    def collective(self, task: Task, result: Tensor, tensor: Tensor) -> Wait:
        """Begin a collective among ranks that all have the same."""
        size = len(task.group)

        def wait() -> None:
            if task.op in IN_PLACE:
                sums = task.op in (Op.ALL_REDUCE, Op.REDUCE) and task.reduction == "sum"
                tensor.mul_(size if sums else 1)
            elif task.op is Op.ALL_GATHER:
                result.copy_(tensor.clone().repeat(size))
            elif task.op is Op.REDUCE_SCATTER:
                result.copy_(tensor[: result.numel()].clone() * size)
            else:
                result.copy_(tensor)

        return wait
