"""Passes and transfers of a rank that may run on its device at the same time."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from simulator.program.columns import Columns
from simulator.program.operations import COLLECTIVES, COMMUNICATION, Op
from simulator.program.task import Task


def overlapping(columns: Columns, transfers: Collection[Op]) -> npt.NDArray[np.int64]:
    """Return the positions of passes and transfers of one rank that may overlap.

    A transfer may overlap every pass from the last one that it waits for to the first one that
    waits for it, both excluded.

    Args:
        columns: the instructions of the rank.
        transfers: operations that use the device while they move bytes.
    """
    tasks, count = columns.tasks, len(columns)
    is_pass = np.array([task.op not in COMMUNICATION for task in tasks], bool)[columns.task]
    moves = np.array([_moves(task, transfers) for task in tasks], bool)[columns.task]
    passes = int(is_pass.sum())
    place = np.cumsum(is_pass) - 1  # of a pass, among the passes
    owner = np.repeat(np.arange(count), np.diff(columns.begin))
    begin = np.zeros(count, dtype=np.int64)
    of_pass = is_pass[columns.waits]
    np.maximum.at(begin, owner[of_pass], place[columns.waits[of_pass]] + 1)
    until = np.full(count, passes, dtype=np.int64)
    by_pass = is_pass[owner]
    np.minimum.at(until, columns.waits[by_pass], place[owner[by_pass]])
    overlaps = np.flatnonzero(moves & (begin < until))
    changes = np.zeros(passes + 1, dtype=np.int64)  # of the number that may be under way
    np.add.at(changes, begin[overlaps], 1)
    np.add.at(changes, until[overlaps], -1)
    under_way = np.cumsum(changes)[:passes] > 0
    return np.concatenate([overlaps, np.flatnonzero(is_pass)[under_way]])


def _moves(task: Task, transfers: Collection[Op]) -> bool:
    """Tell whether a task moves bytes in one of these ways: not in a group of one."""
    return task.op in transfers and not (task.op in COLLECTIVES and len(task.group) < 2)
