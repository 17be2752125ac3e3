"""Digests of what ranks do, equal for ranks that do the same with different partners."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from simulator.program.bucket import Bucket
from simulator.program.instruction import Instruction
from simulator.program.task import Task


class ListDigests:
    """Makes the digest of a rank's list, in which other ranks are named by where they are.

    A peer is written relative to the rank, a group relative to its smallest member. So the lists
    of ranks that take the same place in different groups have one digest.
    """

    def __init__(self) -> None:
        self._groups: dict[int, tuple[tuple[int, ...], str]] = {}  # by identity

    def digest(
        self, instructions: Sequence[Instruction], resident: dict[str, int], buckets: list[Bucket]
    ) -> bytes:
        """Return the SHA-256 of one list and of what its rank holds throughout."""
        text = [repr(resident)]
        for bucket in buckets:
            whole = replace(bucket, replicas=(), shards=())
            text.append(f"{whole} {self._group(bucket.replicas)} {self._group(bucket.shards)}")
        numbers: dict[int, int] = {}  # by identity: to make the text of a task is slow
        by_text: dict[str, int] = {}
        for instruction in instructions:
            task = instruction.task
            number = numbers.get(id(task))
            if number is None:
                written = self._task(task, instruction.rank)
                if written not in by_text:
                    by_text[written] = len(by_text)
                    text.append(written)
                number = numbers[id(task)] = by_text[written]
            after = ",".join(map(str, sorted([other.index for other in instruction.after])))
            text.append(f"{number} {instruction.microbatch} {after}")
        return hashlib.sha256("\n".join(text).encode()).digest()

    def _task(self, task: Task, rank: int) -> str:
        stream, offset = task.stream, -1
        if task.peer >= 0:
            offset = task.peer - rank
            stream = f"{stream.removesuffix(str(task.peer))}{offset:+}"
        written = replace(task, stream=stream, peer=offset, group=())
        return f"{written} {self._group(task.group)}"

    def _group(self, group: tuple[int, ...]) -> str:
        if id(group) not in self._groups:
            first = min(group, default=0)
            written = ",".join([str(rank - first) for rank in group])
            self._groups[id(group)] = group, written  # kept, so that its identity stays its own
        return self._groups[id(group)][1]
