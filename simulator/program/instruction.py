"""One task for one microbatch on one rank, with what it waits for."""

from __future__ import annotations

from collections.abc import Iterable

from simulator.program.task import Task


class Instruction:
    """One task for one microbatch on one rank.

    `after` are instructions of the same rank, on other streams, that must have ended.
    `rank` (the global one), `index` (position in the rank's list) and `uid` (position in
    the program) are given by :class:`Program`. Identity is object identity: passes may
    insert freely.
    """

    __slots__ = ("task", "microbatch", "after", "rank", "index", "uid")

    def __init__(self, task: Task, microbatch: int = -1, after: Iterable[Instruction] = ()):
        self.task = task
        self.microbatch = microbatch
        self.after = tuple(after)
        self.rank = self.index = self.uid = -1

    @property
    def label(self) -> str:
        return self.task.label(self.microbatch)

    def __repr__(self) -> str:
        return f"rank {self.rank}: {self.label}"
