"""Programs under a host that launches each list in order, ahead of its device.

That adds conditions to those of streams: communication begins on a rank in the order in which it
is launched, and what makes memory anew under one name is launched when the old memory is free.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from simulator.program.errors import ProgramError
from simulator.program.instruction import Instruction
from simulator.program.operations import COMMUNICATION
from simulator.program.program import Program
from simulator.program.stream import Stream
from simulator.program.tensors import TensorKey, tensor_key


def memory_waits(instructions: Sequence[Instruction]) -> dict[int, list[int]]:
    """Return for instructions of one list, by position, whose ends their launch has to wait for.

    Those are the last to have freed a tensor that the instruction makes anew.
    """
    freed_by: dict[TensorKey, int] = {}
    waits: dict[int, list[int]] = {}
    for position, instruction in enumerate(instructions):
        task, batch = instruction.task, instruction.batch
        for made in task.allocates:
            before = freed_by.pop(tensor_key(made.name, batch), None)
            if before is not None:
                waits.setdefault(position, []).append(before)
        for name in task.frees:
            freed_by[tensor_key(name, batch)] = position
    return waits


def check_launch_order(program: Program) -> None:
    """Check that `program` comes to its end where hosts launch ahead of their devices.

    Raises:
        ProgramError: it would hang, though its streams alone would not; names an instruction.
    """
    count = len(program)
    after: list[list[int]] = [[] for _ in range(3 * count)]
    open_waits = [0] * (3 * count)

    def order(before: int, then: int) -> None:
        after[before].append(then)
        open_waits[then] += 1

    for first, instructions in zip(program.begins, program.ranks, strict=True):
        ahead = memory_waits(instructions)
        last_of: dict[Stream, int] = {}
        launched = communication = -1
        for position, instruction in enumerate(instructions):
            uid, stream = first + position, instruction.task.stream
            order(_launch(uid), _begin(uid))
            order(_begin(uid), _end(uid))
            if launched >= 0:
                order(_launch(launched), _launch(uid))
            launched = uid
            for other in ahead.get(position, ()):
                order(_end(first + other), _launch(uid))
            waits = [first + other.index for other in instruction.after]
            for other in (*waits, last_of[stream]) if stream in last_of else waits:
                order(_end(other), _begin(uid))
            last_of[stream] = uid
            if instruction.task.op in COMMUNICATION:
                if communication >= 0:
                    order(_begin(communication), _begin(uid))
                communication = uid
    for participants in program.participants:
        for member in participants:
            for partner in participants:
                if partner != member:
                    order(_begin(partner), _end(member))
    _follow(program, after, open_waits)


def _follow(program: Program, after: list[list[int]], open_waits: list[int]) -> None:
    """Let everything happen whose conditions are met.

    Raises:
        ProgramError: something never happens.
    """
    ready = deque(node for node, number in enumerate(open_waits) if number == 0)
    while ready:
        for then in after[ready.popleft()]:
            open_waits[then] -= 1
            if open_waits[then] == 0:
                ready.append(then)
    stuck = next((node for node, number in enumerate(open_waits) if number > 0), None)
    if stuck is not None:
        raise ProgramError(
            f"{program.instruction(stuck // 3)!r} never ends where hosts launch communication in "
            "the order of their lists"
        )


def _launch(uid: int) -> int:
    return 3 * uid


def _begin(uid: int) -> int:
    return 3 * uid + 1


def _end(uid: int) -> int:
    return 3 * uid + 2
