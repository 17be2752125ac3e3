"""The order that waits impose on the instructions of one rank."""

from __future__ import annotations

from simulator.program.instruction import Instruction
from simulator.program.stream import COMPUTE_STREAM, Stream

Clock = dict[Stream, int]
"""Maps a stream to the index of the last of its instructions that has ended."""


class Order:
    """Tells which instructions of a rank surely have ended when a later one of its list starts."""

    def __init__(self, instructions: list[Instruction]) -> None:
        self._instructions = instructions
        self._clocks: list[Clock] = []

    def holds(self, first: Instruction, second: Instruction) -> bool:
        """Tell whether `first`, listed earlier, has surely ended when `second` starts.

        Communication waits for all compute that is listed before it (see `check_program`).
        """
        stream = first.task.stream
        if stream in (COMPUTE_STREAM, second.task.stream) or first in second.after:
            return True
        self._clocks = self._clocks or clocks(self._instructions)
        return self._clocks[second.index].get(stream, -1) >= first.index


def clocks(instructions: list[Instruction]) -> list[Clock]:
    """Return, by index, what has ended on the communication streams when an instruction starts.

    These are vector clocks (Mattern 1989, "Virtual Time and Global States of Distributed
    Systems").
    """
    found: list[Clock] = []
    ended: dict[Stream, Clock] = {}  # by stream, when its last instruction so far has ended
    for index, instruction in enumerate(instructions):
        stream = instruction.task.stream
        clock = dict(ended.get(stream, {}))
        if stream != COMPUTE_STREAM:
            _join(clock, ended.get(COMPUTE_STREAM, {}))
        for other in instruction.after:
            if other.task.stream != COMPUTE_STREAM:
                _join(clock, found[other.index])
                _join(clock, {other.task.stream: other.index})
        found.append(clock)
        ended[stream] = clock if stream == COMPUTE_STREAM else clock | {stream: index}
    return found


def _join(clock: Clock, other: Clock) -> None:
    for stream, index in other.items():
        if index > clock.get(stream, -1):
            clock[stream] = index
