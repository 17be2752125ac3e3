"""Places where time can be lost: a rank, a link, a collective, and wider ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from simulator.program.instruction import Instruction
from simulator.program.meetings import participants_of
from simulator.program.operations import COMMUNICATION, MESSAGES
from simulator.program.program import Program
from simulator.program.stream import COMPUTE_STREAM

Level = Callable[[Instruction], list[str]]
"""Returns the places of one width that an instruction belongs to."""


def grouped(program: Program, level: Level) -> dict[str, list[int]]:
    """Return the uids of the instructions of every place.

    Places that are the same under two names are left out: with two ranks all messages are
    those of either.
    """
    groups: dict[str, list[int]] = {}
    for instruction in program:
        for name in level(instruction):
            groups.setdefault(name, []).append(instruction.uid)
    times = Counter(map(tuple, groups.values()))
    return {name: uids for name, uids in groups.items() if times[tuple(uids)] == 1}


def _link(instruction: Instruction) -> list[str]:
    """Return one direction between two ranks, or one communicator."""
    task = instruction.task
    if task.op not in COMMUNICATION:
        return []
    if task.op in MESSAGES:
        source, target = participants_of(instruction.rank, task)
        return [f"messages {source}→{target}"]
    return [f"{_word(instruction)} of ranks {', '.join(map(str, task.group))}"]


def _traffic(instruction: Instruction) -> list[str]:
    """Return all messages of a rank, or all collectives of a stream."""
    task = instruction.task
    if task.op not in COMMUNICATION:
        return []
    if task.op in MESSAGES:
        return [f"messages of rank {rank}" for rank in sorted((instruction.rank, task.peer))]
    return [_word(instruction)]


def _word(instruction: Instruction) -> str:
    return f"{instruction.task.op.value.lower().replace('_', '-')} {instruction.task.stream}"


def _communication(instruction: Instruction) -> list[str]:
    task = instruction.task
    if task.op not in COMMUNICATION:
        return []
    return ["messages" if task.op in MESSAGES else "collectives"]


def _only(name: str, select: Callable[[Instruction], bool]) -> Level:
    return lambda instruction: [name] if select(instruction) else []


def _computes(instruction: Instruction) -> bool:
    return instruction.task.stream == COMPUTE_STREAM


PLACES: dict[str, tuple[Level, ...]] = {
    "compute": (
        lambda i: [f"compute of rank {i.rank}"] if _computes(i) else [],
        lambda i: [f"{i.task.name} on all ranks"] if _computes(i) else [],
        _only("compute of all ranks", _computes),
    ),
    "communication": (
        _link,
        _traffic,
        _communication,
        _only("communication", lambda i: i.task.op in COMMUNICATION),
    ),
    "host_gaps": (
        lambda i: [f"host time of rank {i.rank} between instructions"],
        _only("host time between instructions", lambda i: True),
    ),
}
"""The places of each kind of cause, from the narrowest to everything of the kind."""
