"""Meetings of instructions of different ranks, in messages and in collectives."""

from __future__ import annotations

from collections.abc import Sequence

from simulator.program.errors import ProgramError
from simulator.program.instruction import Instruction
from simulator.program.operations import COMMUNICATION, MESSAGES, Op


def rendezvous_key(instruction: Instruction) -> tuple[str, tuple[int, ...]]:
    """Return the name of the queue in which an instruction meets its participants.

    The k-th SEND of a queue meets its k-th RECV; the k-th collective of every member
    of a communicator meet.
    """
    task = instruction.task
    if task.op is Op.SEND:
        return ("message", (instruction.rank, task.peer))
    if task.op is Op.RECV:
        return ("message", (task.peer, instruction.rank))
    return (task.stream, task.group)


def match_rendezvous(
    lists: Sequence[Sequence[Instruction]], members: Sequence[int], world_size: int
) -> list[tuple[Instruction, ...]]:
    """Return the participants of every message and collective, in the order of the lists.

    In a folded program only the ranks that have a list take part.

    Args:
        lists: the instructions of each list.
        members: the global rank of each list.
        world_size: the number of ranks, those without a list included.

    Raises:
        ProgramError: a message has no partner, or the participants disagree about what
            is sent; names the ranks and the instructions.
    """
    queues: dict[tuple[str, tuple[int, ...]], dict[int, list[Instruction]]] = {}
    for rank, instructions in zip(members, lists, strict=True):
        queue_of: dict[int, list[Instruction] | None] = {}  # by identity of the task
        for instruction in instructions:
            task = instruction.task
            if id(task) not in queue_of:
                queue_of[id(task)] = None
                if task.op in COMMUNICATION:
                    queue = queues.setdefault(rendezvous_key(instruction), {})
                    queue_of[id(task)] = queue.setdefault(rank, [])
            mine = queue_of[id(task)]
            if mine is not None:
                mine.append(instruction)
    folded_away = set(range(world_size)).difference(members)
    agreed: set[tuple[int, ...]] = set()
    meetings: list[tuple[Instruction, ...]] = []
    for key, theirs in queues.items():
        kind, group = key
        expected = group
        if folded_away and kind != "message":
            expected = tuple([rank for rank in group if rank not in folded_away])
        longest = max(theirs.values(), key=len)
        for member, listed in theirs.items():
            if member not in group:
                raise ProgramError(f"rank {member}: {listed[0].label} is not of its group {group}")
        for rank in expected:
            found = theirs.get(rank, [])
            if len(found) < len(longest):
                missing = longest[len(found)]
                raise ProgramError(
                    f"rank {missing.rank}: {missing.label} has no partner on rank {rank}"
                )
        for meeting in zip(*(theirs[rank] for rank in expected), strict=True):
            tasks = tuple([id(member.task) for member in meeting])
            if tasks not in agreed or len({member.microbatch for member in meeting}) > 1:
                check_agreement(meeting)
                agreed.add(tasks)
            meetings.append(meeting)
    return meetings


def check_agreement(meeting: tuple[Instruction, ...]) -> None:
    """Check that the participants of a meeting exchange the same thing.

    Raises:
        ValueError: they differ in operation, reduction, tensor, microbatch or bytes.
    """

    def what(instruction: Instruction) -> str:
        task = instruction.task
        op = "message" if task.op in MESSAGES else task.op.value
        op += "" if task.reduction == "sum" else f" by {task.reduction}"
        which = f" of microbatch {instruction.microbatch}" if instruction.microbatch >= 0 else ""
        return f"{op} {task.tensor}{which}, {task.nbytes} bytes"

    first = meeting[0]
    for other in meeting[1:]:
        if what(other) != what(first):
            raise ProgramError(
                f"rank {first.rank}: {first.label} ({what(first)}) would meet rank {other.rank}: "
                f"{other.label} ({what(other)}): their orders differ"
            )
