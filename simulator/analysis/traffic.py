"""The bytes that ranks send each other."""

from __future__ import annotations

from simulator.program.operation_columns import Side
from simulator.program.operations import Op
from simulator.program.task import Task


def bytes_sent(task: Task) -> float:
    """Return the bytes that are sent for the part of one rank in a transfer.

    All parts of a meeting add up to what is sent in it: of a message its bytes; of a collective
    the least with which all can have their results, which rings send (Patarasuk and Yuan 2009,
    "Bandwidth Optimal All-Reduce Algorithms"). Compute sends nothing.
    """
    match task.op.row.side:
        case Side.COMPUTES | Side.SERVES:
            return 0.0
        case Side.SENDS:
            return float(task.nbytes)
        case Side.RECEIVES:
            return float(task.nbytes) if task.queue else 0.0  # a server that accepts sends it
        case Side.MEETS:
            count = len(task.group)
            if task.op.row.hop:
                return float(task.nbytes)
            both = 2 if task.op is Op.ALL_REDUCE else 1
            return both * task.nbytes * (count - 1) / count
