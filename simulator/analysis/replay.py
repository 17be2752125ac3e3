"""Replay a program with times read off its predicted and its measured timeline."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simulator.cluster.resource import Resource
from simulator.engine.engine import simulate
from simulator.engine.questions import Costs
from simulator.program.instruction import Instruction
from simulator.program.program import Program
from simulator.program.stream import COMPUTE_STREAM
from simulator.program.walk import predecessors
from simulator.timeline.timeline import Floats, Timeline

Mask = npt.NDArray[np.bool_]
"""One truth value an instruction."""

KINDS = ("compute", "communication", "host_gaps")
"""The kinds of causes, in the order in which measured times take the place of predicted ones."""


class RecordedCosts(Costs):
    """Costs read off timelines instead of a model; nothing shares anything."""

    def __init__(self, durations: Floats, delays: Floats):
        self.capacities: dict[Resource, float] = {}
        self._durations: list[float] = durations.tolist()
        self._delays: list[float] = delays.tolist()

    def seconds(self, instruction: Instruction) -> float:
        """Return the recorded duration."""
        return float(self._durations[instruction.uid])

    def delay(self, instruction: Instruction) -> float:
        """Return the recorded time between being able to start and starting."""
        return float(self._delays[instruction.uid])

    def all_seconds(self, program: Program) -> list[float]:
        """Return the recorded duration of every instruction."""
        return self._durations

    def all_delays(self, program: Program) -> list[float]:
        """Return the recorded delay of every instruction."""
        return self._delays


class Replay:
    """A program, and what each of its instructions took: predicted and measured.

    Attributes:
        concerned: per kind of cause a mask of its instructions.
    """

    def __init__(
        self,
        program: Program,
        predicted: Timeline,
        measured: Timeline,
        order: npt.NDArray[np.int64],
    ):
        """Read the times off both timelines.

        Args:
            program: what both timelines are of.
            predicted: spans in the order of the program.
            measured: spans in any order.
            order: for each predicted span the index of the measured one.
        """
        self._program = program
        waits = predecessors(program)
        columns = (measured.posted[order], measured.start[order], measured.end[order])
        predicted_columns = (predicted.posted, predicted.start, predicted.end)
        self._durations = [np.empty(0)] * 2
        self._gaps = [np.empty(0)] * 2
        self._late = [np.empty(0)] * 2
        idle = np.zeros(len(program), dtype=bool)
        idle[predicted.idle] = True
        for side, (times, had_nothing) in enumerate(
            ((predicted_columns, idle), (columns, np.isin(order, measured.idle)))
        ):
            read = _read(program, waits, *times)
            self._durations[side], self._gaps[side], self._late[side] = read
            self._durations[side] = _as_if_done(predicted, self._durations[side], had_nothing)
        compute = predicted.of_kind(lambda kind: kind.stream == COMPUTE_STREAM)
        everywhere = np.ones(len(program), dtype=bool)
        self.concerned: dict[str, Mask] = {
            "compute": compute,
            "communication": ~compute,
            "host_gaps": everywhere,
        }

    def with_measured(
        self,
        kinds: tuple[str, ...] = (),
        only: tuple[str, Mask] | None = None,
        lateness: bool = False,
    ) -> float:
        """Return the iteration time, in seconds, where some of the times are measured.

        Args:
            kinds: of all instructions that these kinds concern.
            only: a kind, and the instructions of it whose times are measured besides.
            lateness: how late in turn participants come is measured, too.
        """
        masks = [(kind, self.concerned[kind]) for kind in kinds] + ([only] if only else [])
        durations, delays = (np.zeros(len(self._program), dtype=bool) for _ in range(2))
        for kind, mask in masks:
            if kind == "host_gaps":
                delays |= mask
            else:
                durations |= mask
        lasts = np.where(durations, *reversed(self._durations)) + self._late[lateness]
        costs = RecordedCosts(lasts, np.where(delays, *reversed(self._gaps)))
        return simulate(self._program, costs).iteration_time

    def times(self, kind: str) -> tuple[Floats, Floats]:
        """Return what a kind took per instruction, in seconds: predicted, measured."""
        predicted, measured = self._gaps if kind == "host_gaps" else self._durations
        return predicted, measured


def _read(
    program: Program, waits: list[list[Instruction]], posted: Floats, start: Floats, end: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return three times per instruction, in seconds: duration, gap, and lateness.

    A meeting lasts as long as for the last of its participants. Lateness is how late in turn
    the participants were: from the last of their posted times to their start. In every single
    iteration it is 0. In medians it is more if a different rank is late in each iteration:
    waiting for the latest takes longer than the medians of the single ranks suggest.
    """
    durations, late = end - start, np.zeros(len(program))
    for participants in program.meetings:
        members = [member.uid for member in participants]
        durations[members] = durations[members].max()
        late[members] = max(start[members].max() - posted[members].max(), 0.0)
    return durations, _gaps(waits, posted, start + durations), late


def _as_if_done(timeline: Timeline, durations: Floats, idle: Mask) -> Floats:
    """Return durations in which what had nothing to do takes as long as its like on its rank.

    When policies decide anew, it may have something to do.
    """
    if not idle.any():
        return durations
    found = durations.copy()
    _, of_like = np.unique(np.stack([timeline.rank, timeline.kind]), axis=1, return_inverse=True)
    for number in np.unique(of_like[idle]).tolist():
        mine = of_like == number
        if (mine & ~idle).any():
            found[mine & idle] = np.median(durations[mine & ~idle])
    return found


def _gaps(waits: list[list[Instruction]], posted: Floats, end: Floats) -> Floats:
    """Return the seconds from the last predecessor's end to the posting of each instruction.

    They are negative where this rank left a collective before its slowest member.
    """
    ready = np.zeros(len(waits))
    for uid, before in enumerate(waits):
        if before:
            ready[uid] = max(end[other.uid] for other in before)
    return posted - ready
