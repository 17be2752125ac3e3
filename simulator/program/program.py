"""The language in the middle: what every rank does in one training step.

A :class:`Program` holds one list of :class:`Instruction` per rank. The simulator
(`simulator.engine`) and the runtime (`runtime.executor`) both interpret it with the
same semantics, written down in ``docs/program.md``:

* a rank has a few *streams* (``compute``; ``send:PEER`` and ``recv:PEER`` per peer; one
  per communicator); the instructions of one stream run in the order of the list;
* an instruction starts when its stream is free, everything in ``after`` has ended and,
  for communication, every participant has arrived (rendezvous).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from simulator.program.bucket import Bucket
from simulator.program.instruction import Instruction
from simulator.program.meetings import match_rendezvous
from simulator.program.task import Task


@dataclass(eq=False)
class Program:
    """The instruction lists of all ranks and the bytes each rank holds throughout.

    `resident` maps, per list, a name (parameters, gradients, …) to bytes, `buckets` lists,
    per list, its parameters. `num_stages` counts virtual stages over the whole pipeline.

    A *folded* program has the lists of some of `world_size` ranks only, and every other
    rank does the same as one of them. `members` are the global ranks of the lists; peers,
    groups and `Instruction.rank` are global too. Not given: all ranks.
    """

    ranks: list[list[Instruction]]
    resident: list[dict[str, int]] = field(default_factory=list)
    buckets: list[list[Bucket]] = field(default_factory=list)
    num_stages: int = 1
    members: list[int] = field(default_factory=list)
    world_size: int = 0

    def __post_init__(self) -> None:
        if not self.resident:
            self.resident = [{} for _ in self.ranks]
        if not self.buckets:
            self.buckets = [[] for _ in self.ranks]
        if not self.members:
            self.members = list(range(len(self.ranks)))
        self.world_size = self.world_size or len(self.ranks)
        uid = 0
        for rank, instructions in zip(self.members, self.ranks, strict=True):
            for index, instruction in enumerate(instructions):
                instruction.rank, instruction.index, instruction.uid = rank, index, uid
                uid += 1

    @property
    def num_ranks(self) -> int:
        """Lists, one a rank: fewer than `world_size` if the program is folded."""
        return len(self.ranks)

    @property
    def is_folded(self) -> bool:
        return self.num_ranks < self.world_size

    def __len__(self) -> int:
        return sum(map(len, self.ranks))

    def __iter__(self) -> Iterator[Instruction]:
        for instructions in self.ranks:
            yield from instructions

    @cached_property
    def meetings(self) -> list[tuple[Instruction, ...]]:
        """See :func:`match_rendezvous`."""
        return match_rendezvous(self.ranks, self.members, self.world_size)

    def hash(self) -> str:
        """The first 16 hex digits of the SHA-256 of the whole program: equal programs,
        equal hashes, on every machine and in every process.
        """
        digest = hashlib.sha256(repr((self.num_stages, self.resident, self.buckets)).encode())
        if self.is_folded:
            digest.update(f"{self.world_size} ranks\n".encode())
        numbers: dict[int, int] = {}  # by identity: hashing a task's fields is slow
        by_value: dict[Task, int] = {}
        for instructions in self.ranks:
            text: list[str] = []
            for instruction in instructions:
                rank, task, microbatch = instruction.rank, instruction.task, instruction.microbatch
                if id(task) not in numbers:
                    if task not in by_value:
                        by_value[task] = len(by_value)
                        text.append(repr(task))
                    numbers[id(task)] = by_value[task]
                after = ",".join([str(other.index) for other in instruction.after])
                text.append(f"{rank} {numbers[id(task)]} {microbatch} {after}\n")
            digest.update("".join(text).encode())
        return digest.hexdigest()[:16]
