"""Instructions: one task for one microbatch on one rank, with what it waits for."""

from __future__ import annotations

from collections.abc import Iterable

from simulator.program.batch import Batch
from simulator.program.task import Task


class Instruction:
    """One task for one microbatch on one rank.

    Two instructions are equal only if they are one object, so transforms of a list may insert
    freely: references in `after` stay right.

    Attributes:
        task: what the instruction does.
        microbatch: the microbatch it works on; -1: none, it belongs to the step.
        step: the training step that it belongs to, counted from 0.
        after: instructions of the same rank, on other streams, that must have ended.
        rank: the global rank; this and the following are given by :class:`Program`.
        index: the position in the rank's list.
        uid: the position in the program.
    """

    __slots__ = ("task", "microbatch", "after", "step", "rank", "index", "uid")

    def __init__(
        self, task: Task, microbatch: int = -1, after: Iterable[Instruction] = (), step: int = 0
    ):
        self.task = task
        self.microbatch = microbatch
        self.step = step
        self.after = tuple(after)
        self.rank = self.index = self.uid = -1

    @property
    def label(self) -> str:
        """The short name that people read: see `label_of`."""
        return self.task.label(self.microbatch, self.step)

    @property
    def batch(self) -> Batch:
        """The training step, and the microbatch of it."""
        return self.step, self.microbatch

    def __repr__(self) -> str:
        return f"rank {self.rank}: {self.label}"
