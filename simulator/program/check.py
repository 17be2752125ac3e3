"""Programs that would hang or leak are refused before anything is started."""

from __future__ import annotations

import numpy as np

from simulator.program.call_lifetimes import are_sound
from simulator.program.deadlock import check_deadlock
from simulator.program.errors import ProgramError
from simulator.program.instruction import Instruction
from simulator.program.operations import COMMUNICATION
from simulator.program.program import Program
from simulator.program.stream import COMPUTE_STREAM, Stream
from simulator.program.tensor_lifetimes import check_tensors


def check_program(program: Program) -> None:
    """Check that `program` can run to its end and gives back all it allocates.

    Raises:
        ProgramError: a message without a partner, members of a group that issue collectives
            in different orders, a cycle of waits (deadlock), a tensor freed twice, never, or
            while a communication may still read it, or one that is read before it surely
            exists. The message names ranks and instructions.
    """
    _check_streams(program)
    check_deadlock(program)
    for position in range(program.num_ranks):
        if not (program.calls and are_sound(program.call_columns[position])):
            check_tensors(program.ranks[position])


def _check_streams(program: Program) -> None:
    """Check that communication has streams of its own and follows the order of the host.

    A rank reaches a communication instruction when the compute before it in the list has
    ended; the instruction must say so itself, or the list promises what no host can do.
    """
    for first, columns in zip(program.begins, program.columns, strict=True):
        for number, task in enumerate(columns.tasks):
            typed = isinstance(task.stream, Stream)
            if not typed or (task.op in COMMUNICATION) == (task.stream == COMPUTE_STREAM):
                wrong = program.instruction(first + int(np.argmax(columns.task == number)))
                where = f"stream '{task.stream}'" if typed else f"{task.stream!r}, not a Stream"
                raise ProgramError(f"{wrong!r} is queued on {where}")
    for instructions in program.ranks if not program.calls else ():  # calls say so by themselves
        compute: Instruction | None = None
        for instruction in instructions:
            if instruction.task.op not in COMMUNICATION:
                compute = instruction
            elif compute is not None and compute not in instruction.after:
                raise ProgramError(
                    f"{instruction!r} is listed behind {compute.label} and does not wait for it"
                )
