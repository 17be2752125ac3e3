"""Programs whose instructions wait for each other for ever."""

from __future__ import annotations

from simulator.program.errors import ProgramError
from simulator.program.leaping_walk import LeapingWalk
from simulator.program.program import Program


def check_deadlock(program: Program) -> None:
    """Check that every stream gets to its end, whatever instructions take.

    Raises:
        ProgramError: an instruction waits for one that is not earlier in its rank's list, or
            instructions wait for each other; the message names where each rank is stuck.
    """
    for instructions in program.ranks if not program.calls else ():  # calls wait for earlier ones
        for instruction in instructions:
            for other in instruction.after:
                if other.index >= instruction.index or instructions[other.index] is not other:
                    raise ProgramError(
                        f"rank {instruction.rank}: {instruction.label} waits for {other.label}, "
                        f"which is not earlier in the list of this rank"
                    )
    walk = LeapingWalk(program)
    walk.advance()
    if stuck := walk.stuck():
        where = "; ".join(f"rank {i.rank} waits in {i.label}" for i in stuck)
        raise ProgramError(f"deadlock: {where}")
