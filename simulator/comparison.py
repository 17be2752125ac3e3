"""Join two timelines by instruction: the errors, and the reason for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from simulator.contention import Demand
from simulator.engine import simulate
from simulator.program import COMPUTE_STREAM, Instruction, Program
from simulator.timeline import Floats, Timeline
from simulator.validate import predecessors


@dataclass
class Comparison:
    """What `compare` found. Errors are signed, predicted − measured, relative to measured.

    Attributes:
        iteration_time_error: of the iteration time.
        instruction_start_error: mean |Δstart| of all instructions ÷ iteration time.
        peak_memory_error: of the rank where it is largest.
        noise_floor: of the measurement (see `runtime.measure.Measurement`), None if unknown.
        attribution: seconds that each cause adds to the predicted iteration time to arrive
            at the measured one, None where the program is not known.
        rows: per operation name: count, predicted and measured median duration in seconds.
    """

    iteration_time_error: float
    instruction_start_error: float
    peak_memory_error: float
    noise_floor: float | None
    attribution: dict[str, float] | None
    rows: list[tuple[str, int, float, float]]

    def to_json(self) -> dict[str, Any]:
        return {
            "iteration_time_error": self.iteration_time_error,
            "instruction_start_error": self.instruction_start_error,
            "peak_memory_error": self.peak_memory_error,
            "noise_floor": self.noise_floor,
            "attribution": self.attribution,
        }


def compare(
    predicted: Timeline,
    measured: Timeline,
    program: Program | None = None,
    iteration_time: float | None = None,
    noise_floor: float | None = None,
) -> Comparison:
    """Compare two timelines of the same program.

    Args:
        program: what both executed; without it there is no attribution.
        iteration_time: of the measurement, seconds; None: the end of its timeline.

    Raises:
        ValueError: the timelines do not hold the same instructions.
    """
    order = _join(predicted, measured)
    total = iteration_time or measured.iteration_time
    if total <= 0:
        raise ValueError("the measured timeline is empty")
    expected = predicted.meta.get("statistics", {}).get("iteration_time_s")
    expected = predicted.iteration_time if expected is None else expected
    starts = np.abs(predicted.start - measured.start[order])
    return Comparison(
        iteration_time_error=(expected - total) / total,
        instruction_start_error=float(starts.mean()) / total,
        peak_memory_error=_memory_error(predicted, measured),
        noise_floor=noise_floor,
        attribution=attribute(program, predicted, measured) if program else None,
        rows=_rows(predicted, measured, order),
    )


def _join(predicted: Timeline, measured: Timeline) -> Any:
    """For each predicted span the index of the measured span of the same instruction."""
    if predicted.members != measured.members:
        raise ValueError(
            f"not the same program: {predicted.num_ranks} ranks predicted, "
            f"{measured.num_ranks} measured"
        )
    theirs: dict[tuple[int, str], int] = {}
    for span in range(len(measured)):
        theirs[int(measured.rank[span]), measured.label(span)] = span
    order = np.empty(len(predicted), dtype=np.int64)
    for span in range(len(predicted)):
        key = (int(predicted.rank[span]), predicted.label(span))
        if key not in theirs:
            raise ValueError(f"not the same program: rank {key[0]}, {key[1]} was not measured")
        order[span] = theirs.pop(key)
    if theirs:
        rank, label = next(iter(theirs))
        raise ValueError(f"not the same program: rank {rank}, {label} was not predicted")
    return order


def _memory_error(predicted: Timeline, measured: Timeline) -> float:
    errors = [
        (mine.peak - theirs.peak) / theirs.peak
        for mine, theirs in zip(predicted.memory, measured.memory, strict=False)
        if theirs.peak > 0
    ]
    return max(errors, key=abs, default=0.0)


def _rows(
    predicted: Timeline, measured: Timeline, order: Any
) -> list[tuple[str, int, float, float]]:
    mine = predicted.end - predicted.start
    theirs = (measured.end - measured.start)[order]
    rows = []
    for name in dict.fromkeys(kind.name for kind in predicted.kinds):
        chosen = predicted.of_kind(lambda kind, name=name: kind.name == name)
        rows.append(
            (
                name,
                int(chosen.sum()),
                float(np.median(mine[chosen])),
                float(np.median(theirs[chosen])),
            )
        )
    return rows


class _Replay:
    """Costs read off timelines instead of a model; nothing shares anything."""

    def __init__(self, durations: Floats, delays: Floats):
        self.capacities: dict[str, float] = {}
        self._durations, self._delays = durations.tolist(), delays.tolist()

    def seconds(self, instruction: Instruction) -> float:
        return float(self._durations[instruction.uid])

    def delay(self, instruction: Instruction) -> float:
        return float(self._delays[instruction.uid])

    def demand(self, participants: tuple[Instruction, ...]) -> Demand:
        return ()


def attribute(program: Program, predicted: Timeline, measured: Timeline) -> dict[str, float]:
    """Replay the program with predicted times, then put in what was measured, in turn:
    compute, communication, host gaps (between being able to start and starting). Each
    entry is what that step adds to the iteration time, in seconds; ``remainder`` is what
    is left to the measured one.
    """
    order = _join(predicted, measured)
    waits = predecessors(program)
    compute = predicted.of_kind(lambda kind: kind.stream == COMPUTE_STREAM)
    mine, theirs = predicted.end - predicted.start, (measured.end - measured.start)[order]
    gaps = _gaps(waits, predicted.posted, predicted.end)
    their_gaps = _gaps(waits, measured.posted[order], measured.end[order])

    def replay(durations: Floats, delays: Floats) -> float:
        return simulate(program, _Replay(durations, delays)).iteration_time

    steps = [
        replay(mine, gaps),
        replay(np.where(compute, theirs, mine), gaps),
        replay(theirs, gaps),
        replay(theirs, their_gaps),
        measured.iteration_time,
    ]
    names = ("compute", "communication", "host_gaps", "remainder")
    return {
        f"{name}_s": after - before
        for name, before, after in zip(names, steps, steps[1:], strict=False)
    }


def _gaps(waits: list[list[Instruction]], posted: Floats, end: Floats) -> Floats:
    """Per instruction, seconds between its last predecessor's end and its posting."""
    ready = np.zeros(len(waits))
    for uid, before in enumerate(waits):
        if before:
            ready[uid] = max(end[other.uid] for other in before)
    return np.maximum(posted - ready, 0.0)
