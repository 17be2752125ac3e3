"""Times of programs in which nothing is shared: the longest path, pass by pass.

Where passes are all that ranks do by themselves and messages all that they do together, a pass
starts when the one before it and the messages that it waits for have ended, a message once both
sides are there and the one before it has ended. So passes and messages are looked at once each, as
numbers, in an order in which they can happen; other programs are for `simulator.engine.engine`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from simulator.program.columns import Integers
from simulator.program.program import Program
from simulator.program.stream import COMPUTE_STREAM
from simulator.timeline.timeline import Floats


class Path(NamedTuple):
    """Passes and messages by number, and what must come before each.

    Attributes:
        passes: the uids of passes, rank by rank, in order.
        bounds: where the passes of each rank begin, and where those of the last one end.
        messages: the uids of both sides of every message, queue by queue, in order.
        behind: of both sides the last pass before it; -1: there is none.
        before: the message before it in its queue; -1: there is none.
        begin: per pass, and once more at the end, where its waits begin in `waits`.
        waits: the messages that passes wait for.
    """

    passes: Integers
    bounds: Integers
    messages: Integers
    behind: Integers
    before: Integers
    begin: Integers
    waits: Integers


def unshared_times(
    program: Program, seconds: Sequence[float]
) -> tuple[Floats, Floats, Floats] | None:
    """Return when every instruction is posted, starts and ends; None: this is not for all of them.

    Args:
        program: may be any.
        seconds: what each instruction takes, for messages from the later side on.
    """
    path = path_of(program)
    if path is None:
        return None
    takes = np.array(seconds, dtype=np.float64)
    followed = _follow(path, takes[path.passes].tolist(), takes[path.messages[:, 0]].tolist())
    if followed is None:
        return None
    begun, ended, arrived = followed  # the last of each stands for what is not there
    posted, start, end = np.empty((3, len(program)))
    posted[path.passes] = start[path.passes] = begun
    end[path.passes] = ended[:-1]
    sides = np.maximum(ended[path.behind], arrived[path.before][:, None])
    posted[path.messages] = sides
    start[path.messages] = sides.max(axis=1)[:, None]
    end[path.messages] = arrived[:-1][:, None]
    return posted, start, end


def path_of(program: Program) -> Path | None:
    """Return the passes and messages of a program; None: there is more in it."""
    queues = program.meeting_queues
    if program.queues or any(together.shape[1] != 2 for together in queues):
        return None
    messages = np.concatenate([np.empty((0, 2), dtype=np.int64), *queues])
    count = len(program)
    number = np.full(count, -1, dtype=np.int64)  # of a message
    number[messages] = np.arange(len(messages))[:, None]
    of_queue = np.repeat(np.arange(len(queues)), [len(together) for together in queues])
    before = np.arange(-1, len(messages) - 1)
    before[np.flatnonzero(np.diff(of_queue, prepend=-1))] = -1
    pass_number = np.full(count, -1, dtype=np.int64)
    behind = np.full(count, -1, dtype=np.int64)
    passes, owners, waits = [number[:0]], [number[:0]], [number[:0]]
    bounds = [0]
    for first, columns in zip(program.begins, program.columns, strict=True):
        streams = columns.positions(lambda task: task.stream)
        computing = first + streams.pop(COMPUTE_STREAM, number[:0])
        if (number[computing] >= 0).any():
            return None
        for positions in streams.values():
            mine = number[first + positions]
            if (mine < 0).any() or np.unique(of_queue[mine]).size > 1:
                return None
        passes.append(computing)
        bounds.append(bounds[-1] + computing.size)
        pass_number[computing] = np.arange(bounds[-2], bounds[-1])
        owner = first + np.repeat(np.arange(len(columns)), np.diff(columns.begin))
        waited = first + columns.waits
        meets = number[waited] >= 0
        if (number[owner[meets]] >= 0).any():
            return None
        np.maximum.at(behind, owner[~meets], pass_number[waited[~meets]])
        owners.append(owner[meets])
        waits.append(number[waited[meets]])
    owner = pass_number[np.concatenate(owners)]
    order = np.argsort(owner, kind="stable")
    return Path(
        np.concatenate(passes),
        np.array(bounds, dtype=np.int64),
        messages,
        behind[messages],
        before,
        np.searchsorted(owner[order], np.arange(bounds[-1] + 1)),
        np.concatenate(waits)[order],
    )


def _follow(
    path: Path, takes: Sequence[float], lasts: Sequence[float]
) -> tuple[Floats, Floats, Floats] | None:
    """Return when passes start and end, and messages end, each with a zero at the end.

    None: passes wait for each other for ever.

    Args:
        path: what must come before what.
        takes: seconds of each pass.
        lasts: seconds of each message.
    """
    begin, waits, before = path.begin.tolist(), path.waits.tolist(), path.before.tolist()
    one, other = path.behind[:, 0].tolist(), path.behind[:, 1].tolist()
    bounds = path.bounds.tolist()
    start = [0.0] * len(takes)
    ended = [-1.0] * len(takes) + [0.0]
    arrived = [-1.0] * len(lasts) + [0.0]
    reached, free = bounds[:-1], [0.0] * (len(bounds) - 1)
    blocked: dict[int, list[int]] = {}  # ranks, by the pass that they wait for
    todo = list(range(len(free)))
    while todo:
        rank = todo.pop()
        number, now, until = reached[rank], free[rank], bounds[rank + 1]
        awaited = -1
        while number < until:
            for message in waits[begin[number] : begin[number + 1]]:
                time = arrived[message]
                if time < 0:
                    first, second, time = ended[one[message]], ended[other[message]], 0.0
                    if first < 0 or second < 0:
                        awaited = one[message] if first < 0 else other[message]
                        break
                    queued = before[message]
                    if arrived[queued] < 0:
                        _catch_up(queued, before, one, other, ended, arrived, lasts)
                    time = arrived[queued]
                    if first > time:
                        time = first
                    if second > time:
                        time = second
                    arrived[message] = time = time + lasts[message]
                if time > now:
                    now = time
            if awaited >= 0:
                blocked.setdefault(awaited, []).append(rank)
                break
            start[number] = now
            ended[number] = now = now + takes[number]
            if number in blocked:
                todo += blocked.pop(number)
            number += 1
        reached[rank], free[rank] = number, now
    if blocked:
        return None
    for message, time in enumerate(arrived[:-1]):
        if time < 0:
            _catch_up(message, before, one, other, ended, arrived, lasts)
    return np.array(start), np.array(ended), np.array(arrived)


def _catch_up(
    message: int,
    before: Sequence[int],
    one: Sequence[int],
    other: Sequence[int],
    ended: Sequence[float],
    arrived: list[float],
    lasts: Sequence[float],
) -> None:
    """Find when a message and those before it arrive, whose sides are all there."""
    chain = [message]
    while arrived[before[chain[-1]]] < 0:
        chain.append(before[chain[-1]])
    for number in reversed(chain):
        last = max(ended[one[number]], ended[other[number]], arrived[before[number]])
        arrived[number] = last + lasts[number]
