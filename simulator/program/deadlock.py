"""Programs whose instructions wait for each other for ever."""

from __future__ import annotations

from simulator.program.arrival_check import check_arrivals
from simulator.program.errors import ProgramError
from simulator.program.pieces import surely_ends
from simulator.program.program import Program
from simulator.program.repeating_walk import RepeatingWalk


def check_deadlock(program: Program) -> None:
    """Check that every stream gets to its end, whatever instructions take.

    Raises:
        ProgramError: an instruction waits for one that is not earlier in its rank's list, or
            instructions wait for each other, whoever arrives first where policies decide; the
            message names where each rank is stuck.
    """
    for instructions in program.ranks if not program.calls else ():  # calls wait for earlier ones
        for instruction in instructions:
            for other in instruction.after:
                if other.index >= instruction.index or instructions[other.index] is not other:
                    raise ProgramError(
                        f"rank {instruction.rank}: {instruction.label} waits for {other.label}, "
                        f"which is not earlier in the list of this rank"
                    )
    check_arrivals(program)
    if surely_ends(program):
        return
    walk = RepeatingWalk(program)
    walk.complete()
    if stuck := walk.stuck():
        where = [f"rank {i.rank} waits in {i.label}" for i in stuck]
        policies = dict.fromkeys(f"{i.task.policy}" for i in stuck if i.task.policy is not None)
        raise ProgramError(f"deadlock: {'; '.join([*where, *policies])}")
