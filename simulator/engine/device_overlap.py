"""Passes and transfers of a rank that may run on its device at the same time."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from simulator.program.instruction import Instruction
from simulator.program.operations import COLLECTIVES, COMMUNICATION, Op


def overlapping(instructions: Sequence[Instruction], transfers: Collection[Op]) -> set[int]:
    """Return the uids of passes and transfers of one rank that may overlap.

    A transfer may overlap every pass from the last one that it waits for to the first one that
    waits for it, both excluded.

    Args:
        instructions: the list of the rank.
        transfers: operations that use the device while they move bytes.
    """
    passes = [i for i in instructions if i.task.op not in COMMUNICATION]
    position = {i.uid: index for index, i in enumerate(passes)}
    until: dict[int, int] = {}
    for index, compute in enumerate(passes):
        for other in compute.after:
            until.setdefault(other.uid, index)
    found: set[int] = set()
    changes = [0] * (len(passes) + 1)  # of the number of transfers that may be under way
    for i in instructions:
        if i.task.op not in transfers or _is_alone(i):
            continue
        begin = max([position[o.uid] + 1 for o in i.after if o.uid in position], default=0)
        end = until.get(i.uid, len(passes))
        if begin < end:
            found.add(i.uid)
            changes[begin] += 1
            changes[end] -= 1
    under_way = 0
    for index, compute in enumerate(passes):
        under_way += changes[index]
        if under_way:
            found.add(compute.uid)
    return found


def _is_alone(instruction: Instruction) -> bool:
    return instruction.task.op in COLLECTIVES and len(instruction.task.group) < 2
