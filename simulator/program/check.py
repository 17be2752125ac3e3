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
from simulator.program.tensors import TensorName


def check_program(program: Program) -> None:
    """Check that `program` can run to its end and gives back all it allocates.

    Raises:
        ProgramError: a message without a partner, members of a group that issue collectives
            in different orders, a cycle of waits (deadlock), a tensor freed twice, never, or
            while a communication may still read it, or one that is read before it surely
            exists. The message names ranks and instructions.
    """
    _check_words(program)
    _check_streams(program)
    check_deadlock(program)
    for position in range(program.num_ranks):
        if not (program.calls and are_sound(program.call_columns[position])):
            check_tensors(program.ranks[position])


def _check_words(program: Program) -> None:
    """Check that streams and tensors are named by typed words, not by text."""
    for first, columns in zip(program.begins, program.columns, strict=True):
        for number, task in enumerate(columns.tasks):
            made = (tensor.name for tensor in task.allocates)
            found = [n for n in (task.tensor, *task.sources, *task.frees, *made) if n is not None]
            texts = [name for name in found if not isinstance(name, TensorName)]
            if texts or not isinstance(task.stream, Stream):
                wrong = program.instruction(first + int(np.argmax(columns.task == number)))
                what = f"stream {task.stream!r}, not a Stream"
                if texts:
                    what = f"tensor {texts[0]!r}, not a TensorName"
                raise ProgramError(f"{wrong!r} names {what}")


def _check_streams(program: Program) -> None:
    """Check that communication has streams of its own and follows the order of the host.

    A rank reaches a communication instruction when the compute before it in the list has
    ended; the instruction must say so itself, or the list promises what no host can do.
    """
    for first, columns in zip(program.begins, program.columns, strict=True):
        for number, task in enumerate(columns.tasks):
            if (task.op in COMMUNICATION) == (task.stream == COMPUTE_STREAM):
                wrong = program.instruction(first + int(np.argmax(columns.task == number)))
                raise ProgramError(f"{wrong!r} is queued on stream '{task.stream}'")
    for instructions in program.ranks if not program.calls else ():  # calls say so by themselves
        compute: Instruction | None = None
        for instruction in instructions:
            if instruction.task.op not in COMMUNICATION:
                compute = instruction
            elif compute is not None and compute not in instruction.after:
                raise ProgramError(
                    f"{instruction!r} is listed behind {compute.label} and does not wait for it"
                )
