"""Pieces of lists: what a rank does between two moments at which it needs others.

A piece begins with an instruction that waits for a meeting. What follows in the list, up to the
next such instruction, gets to its end by itself, and takes part in its meetings by then. So whether
ranks wait for each other for ever can be told from pieces, which are far fewer than instructions.
"""

from __future__ import annotations

import numpy as np

from simulator.program.columns import Columns, Integers
from simulator.program.program import Program


def surely_ends(program: Program) -> bool:
    """Tell whether a program, whose instructions wait for earlier ones, surely gets to its end.

    A piece is taken to wait for all of the one before it. So False means that instructions may
    wait for each other for ever, or may not: that is for `simulator.program.walk` to say.
    """
    if program.queues:
        return False  # arrival decides who meets whom
    count = len(program)
    queue, turn = np.full((2, count), -1, dtype=np.int64)  # per uid, and the place there
    for number, together in enumerate(program.meeting_queues):
        if together.shape[1] > 1:
            queue[together] = number
            turn[together] = np.arange(len(together))[:, None]
    waiting, waited = _waits_for_meetings(program, queue)
    lengths = [len(columns) for columns in program.columns]
    row = np.repeat(np.arange(len(lengths)), lengths)
    begins = np.zeros(count, dtype=np.int64)
    begins[waiting] = 1
    begins[[first for first, length in zip(program.begins, lengths, strict=True) if length]] = 1
    piece = np.cumsum(begins) - 1
    owners, others = [waiting[:0]], [waiting[:0]]
    of_queue = queue[waited]
    for number in np.unique(of_queue).tolist():
        mine = np.flatnonzero(of_queue == number)
        partners = program.meeting_queues[number][turn[waited[mine]]]
        owners.append(np.repeat(waiting[mine], partners.shape[1]))
        others.append(partners.ravel())
    owner, other = np.concatenate(owners), np.concatenate(others)
    outside = (row[owner] != row[other]) | (piece[other] >= piece[owner])
    owner, other = owner[outside], other[outside]
    order = np.argsort(piece[owner], kind="stable")
    owner, other = owner[order], other[order]
    pieces = int(begins.sum())
    of_piece = np.searchsorted(piece[owner], np.arange(pieces + 1)).tolist()
    per_row = np.bincount(row[begins == 1], minlength=len(lengths))
    last = np.cumsum(per_row)
    return _all_begin(
        (last - per_row).tolist(),
        last.tolist(),
        of_piece,
        row[other].tolist(),
        piece[other].tolist(),
    )


def _waits_for_meetings(program: Program, queue: Integers) -> tuple[Integers, Integers]:
    """Return the uids of instructions and of the meetings that they wait for, pair by pair."""
    waiting, waited = [queue[:0]], [queue[:0]]
    for first, columns in zip(program.begins, program.columns, strict=True):
        mine = queue[first : first + len(columns)]
        owner = np.repeat(np.arange(len(columns)), np.diff(columns.begin))
        meets = mine[columns.waits] >= 0
        turn, before = _turns(columns, mine)
        waiting += [owner[meets] + first, turn + first]
        waited += [columns.waits[meets] + first, before + first]
    return np.concatenate(waiting), np.concatenate(waited)


def _turns(columns: Columns, queue: Integers) -> tuple[Integers, Integers]:
    """Return the instructions whose turn on their stream comes behind a meeting of another queue.

    The k-th meeting of a queue comes before the next one on every rank, which needs no wait.
    """
    waiting, waited = [queue[:0]], [queue[:0]]
    for positions in columns.positions(lambda task: task.stream).values():
        mine = queue[positions]
        if (mine == mine[0]).all():
            continue
        last = np.maximum.accumulate(np.where(mine >= 0, np.arange(mine.size), -1))
        last = np.concatenate([[-1], last[:-1]])
        behind = np.flatnonzero((last >= 0) & (mine[last] != mine))
        waiting.append(positions[behind])
        waited.append(positions[last[behind]])
    return np.concatenate(waiting), np.concatenate(waited)


def _all_begin(
    first: list[int], last: list[int], of_piece: list[int], rows: list[int], needed: list[int]
) -> bool:
    """Tell whether all pieces begin, if each begins once what it needs has begun.

    Args:
        first, last: of every list its first piece, and the one behind its last.
        of_piece: where the needs of each piece begin.
        rows, needed: lists, and the pieces of them that must have begun.
    """
    reached = list(first)  # the next piece of every list
    blocked: list[list[tuple[int, int]]] = [[] for _ in first]
    todo = list(range(len(first)))
    while todo:
        row = todo.pop()
        piece, end = reached[row], last[row]
        while piece < end:
            for need in range(of_piece[piece], of_piece[piece + 1]):
                if reached[rows[need]] <= needed[need]:
                    blocked[rows[need]].append((needed[need], row))
                    break
            else:
                piece += 1
                continue
            break
        reached[row] = piece
        todo += [other for awaited, other in blocked[row] if awaited < piece]
        blocked[row] = [wait for wait in blocked[row] if wait[0] >= piece]
    return reached == last
