"""Digests of what ranks do, equal for ranks that do the same with different partners."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace

import numpy as np

from simulator.program.bucket import Bucket
from simulator.program.columns import Columns
from simulator.program.stream import Stream
from simulator.program.task import Task


class ListDigests:
    """Makes the digest of a rank's list, in which other ranks are named by where they are.

    A peer is written relative to the rank, a group relative to its smallest member. So the lists
    of ranks that take the same place in different groups have one digest.
    """

    def __init__(self) -> None:
        self._groups: dict[int, tuple[tuple[int, ...], str]] = {}  # by identity

    def digest(
        self, rank: int, columns: Columns, resident: dict[str, int], buckets: list[Bucket]
    ) -> bytes:
        """Return the SHA-256 of the list of a rank and of what the rank holds throughout."""
        text = [repr(resident)]
        for bucket in buckets:
            whole = replace(bucket, replicas=(), shards=())
            text.append(f"{whole} {self._group(bucket.replicas)} {self._group(bucket.shards)}")
            if bucket.tied:
                text.append("tied")
            if bucket.server is not None or bucket.part is not None:
                text.append(f"part {bucket.part} of server {bucket.server}")
        by_text: dict[str, int] = {}
        numbers = np.empty(len(columns.tasks), dtype="<i8")
        used, first = np.unique(columns.task, return_index=True)
        for number in used[np.argsort(first)].tolist():
            written = self._task(columns.tasks[number], rank)
            numbers[number] = by_text.setdefault(written, len(by_text))
        found = hashlib.sha256("\n".join([*text, *by_text]).encode())
        several = [columns.step] if columns.step.any() else []  # of one step, nothing to tell
        for column in (
            *(numbers[columns.task], columns.microbatch, *several),
            *(columns.begin, columns.waits),
        ):
            found.update(column.astype("<i8").tobytes())
        return found.digest()

    def _task(self, task: Task, rank: int) -> str:
        written = {field.name: getattr(task, field.name) for field in fields(task) if field.repr}
        written |= {"stream": _from(rank, task.stream), "group": (), "tensor": task.tensor or ""}
        if task.peer >= 0:
            written["peer"] = task.peer - rank
        text = ", ".join([f"{name}={value!r}" for name, value in written.items()])
        queued = f" {task.queue} {task.policy}" if task.queue or task.policy else ""
        root = f" root {task.root - min(task.group, default=0)}" if task.root >= 0 else ""
        numbers = f" coefficients {task.coefficients}" if task.coefficients else ""
        encoded = f" {task.encoding}" if task.encoding else ""
        encoded += f" of {task.dtype}" if task.dtype else ""
        return f"Task({text}) {self._group(task.group)}{queued}{root}{numbers}{encoded}"

    def _group(self, group: tuple[int, ...]) -> str:
        if id(group) not in self._groups:
            first = min(group, default=0)
            written = ",".join([str(rank - first) for rank in group])
            self._groups[id(group)] = group, written  # kept, so that its identity stays its own
        return self._groups[id(group)][1]


def _from(rank: int, stream: Stream) -> str:
    """Return the text of a stream, in which a peer is named by its distance from a rank."""
    return str(stream) if stream.peer < 0 else f"{stream.kind}:{stream.peer - rank:+}"
