"""Meetings of instructions of different ranks, in messages and in collectives."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import partial

import numpy as np

from simulator.program.columns import Columns, Integers
from simulator.program.errors import ProgramError
from simulator.program.operation_columns import Side
from simulator.program.operations import COLLECTIVES, MESSAGES, Op
from simulator.program.stream import Stream
from simulator.program.task import Task

Shown = tuple[int, Task, int, int]
"""An instruction in a message about a mistake: its rank, task, microbatch and training step."""

Queue = tuple[Stream | None, tuple[int, ...]]
"""A queue in which instructions meet: the stream of collectives (None: messages), and who meets."""


CARRIED = frozenset({op for op in COLLECTIVES if not op.row.hop})
"""Operations that a backend carries out in threads of its own, if they are on a host: whoever needs
one begins and awaits it. Messages, of which a shift consists, are sent by the thread of a stream.
"""


def rendezvous_key(rank: int, task: Task) -> Queue | None:
    """Return the queue in which a task of a rank meets its participants; None: it meets nobody.

    The k-th SEND of a queue meets its k-th RECV; the k-th collective of every member
    of a communicator meet. A message with a queue meets whoever accepts it.
    """
    side = task.op.row.side
    if side is Side.COMPUTES or task.queue:
        return None
    return task.stream if side is Side.MEETS else None, participants_of(rank, task)


def participants_of(rank: int, task: Task) -> tuple[int, ...]:
    """Return the ranks that take part in a task of a rank; of a message, the sender first."""
    match task.op.row.side:
        case Side.COMPUTES:
            return (rank,)
        case Side.SENDS:
            return rank, task.peer
        case Side.RECEIVES:
            return task.peer, rank
        case Side.MEETS | Side.SERVES:
            return task.group


def needs_all(rank: int, task: Task) -> bool:
    """Tell whether the part of a rank in a meeting cannot end before all others have come.

    NCCL keeps what it sends in buffers that the receiver empties later, so that a message may
    have been sent, a shift or a broadcast be over, and whoever is not the root of a reduce be
    done, before the last participant has come. What comes from everybody cannot.
    """
    if task.op in (Op.SEND, Op.BROADCAST, Op.SHIFT, Op.SHIFT_BACK):
        return False
    return task.op is not Op.REDUCE or rank == task.root


def match_rendezvous(
    lists: Sequence[Columns], members: Sequence[int], world_size: int
) -> list[Integers]:
    """Return the uids of the participants of every message and collective, by queue.

    Each row of an array is a meeting, in order; the columns are the participants.

    In a folded program only the ranks that have a list take part.

    Args:
        lists: the instructions of each list.
        members: the global rank of each list.
        world_size: the number of ranks, those without a list included.

    Raises:
        ProgramError: a message has no partner, or the participants disagree about what
            is sent; names the ranks and the instructions.
    """
    queues: dict[Queue, dict[int, Integers]] = {}
    first = 0

    def shown(uid: int) -> Shown:
        """Return the rank, the task, the microbatch and the step of an instruction."""
        row = bisect_right(begins, uid) - 1
        columns, index = lists[row], uid - begins[row]
        task = columns.tasks[int(columns.task[index])]
        return members[row], task, int(columns.microbatch[index]), int(columns.step[index])

    begins: list[int] = []
    for rank, columns in zip(members, lists, strict=True):
        begins.append(first)
        for key, indices in columns.positions(partial(rendezvous_key, rank)).items():
            queues.setdefault(key, {})[rank] = indices + first
        first += len(columns)
    folded_away = set(range(world_size)).difference(members)
    batch = np.concatenate(
        [np.empty((2, 0), np.int64), *((of.step, of.microbatch) for of in lists)], 1
    )
    meetings: list[Integers] = []
    for (stream, group), theirs in queues.items():
        expected = group
        if folded_away and stream is not None:
            expected = tuple([rank for rank in group if rank not in folded_away])
        longest = max(theirs.values(), key=len)
        for member, uids in theirs.items():
            if member not in group:
                label = _label(shown(int(uids[0])))
                raise ProgramError(f"rank {member}: {label} is not of its group {group}")
        for rank in expected:
            count = len(theirs.get(rank, ()))
            if count < len(longest):
                missing = shown(int(longest[count]))
                raise ProgramError(
                    f"rank {missing[0]}: {_label(missing)} has no partner on rank {rank}"
                )
        together = np.stack([theirs[rank] for rank in expected], axis=1)
        for meeting in _to_compare(together, batch, lists, begins):
            check_agreement([shown(int(uid)) for uid in meeting])
        meetings.append(together)
    return meetings


def _to_compare(
    together: Integers, batch: Integers, lists: Sequence[Columns], begins: Sequence[int]
) -> Integers:
    """Return the meetings to look at: of other microbatches, and the first of any tasks."""
    if together.shape[1] < 2:
        return together[:0]
    of_batch = batch[:, together]
    differ = (of_batch != of_batch[:, :, :1]).any(axis=(0, 2))
    rows = np.searchsorted(begins, together[0], side="right") - 1
    tasks = np.stack(
        [
            lists[row].task[column - begins[row]]
            for row, column in zip(rows.tolist(), together.T, strict=True)
        ],
        axis=1,
    )
    _, first = np.unique(tasks, axis=0, return_index=True)
    chosen: Integers = together[np.unique(np.concatenate([np.flatnonzero(differ)[:1], first]))]
    return chosen


def _label(instruction: Shown) -> str:
    _, task, microbatch, step = instruction
    return task.label(microbatch, step)


def check_agreement(meeting: Sequence[Shown]) -> None:
    """Check that the participants of a meeting exchange the same thing.

    Raises:
        ProgramError: they differ in operation, reduction, tensor, microbatch or bytes.
    """

    def what(instruction: Shown) -> str:
        _, task, microbatch, step = instruction
        op = "message" if task.op in MESSAGES else task.op.value
        op += "" if task.reduction == "sum" else f" by {task.reduction}"
        which = f" of microbatch {microbatch}" if microbatch >= 0 else ""
        which += f" of step {step}" if step else ""
        return f"{op} {task.tensor}{which}, {task.nbytes} bytes"

    first = meeting[0]
    for other in meeting[1:]:
        if what(other) != what(first):
            raise ProgramError(
                f"rank {first[0]}: {_label(first)} ({what(first)}) would meet rank {other[0]}: "
                f"{_label(other)} ({what(other)}): their orders differ"
            )
