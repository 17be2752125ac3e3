"""Merges what ranks recorded into one measured timeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from simulator.program.accept_queue import Decision
from simulator.program.arrivals import idle_instructions
from simulator.program.meetings import needs_all
from simulator.program.program import Program
from simulator.program.tensors import TensorName
from simulator.timeline.memory import part_of, usual_memory
from simulator.timeline.statistics import usual_iteration
from simulator.timeline.timeline import Floats, MemoryParts, MemorySamples, Timeline


class Allocated(NamedTuple):
    """The peaks of a GPU's allocator in a step, in bytes.

    Attributes:
        held: by tensors of the step.
        reserved: of the device, everything that the process has besides included.
    """

    held: int
    reserved: int


@dataclass
class RankRecord:
    """The record of one rank, in seconds from the common start of each iteration.

    Attributes:
        posted, end: per iteration and instruction of the rank.
        memory: (time, change in bytes, name of the tensor) over each iteration.
        resident: bytes held throughout.
        allocated: the peaks of the allocator, per iteration; empty on CPUs.
        decisions: who met whom on this rank because of when they arrived, per iteration, those
            before the first that is recorded included.
    """

    posted: list[list[float]]
    end: list[list[float]]
    memory: list[list[tuple[float, int, TensorName]]]
    resident: MemoryParts
    allocated: list[Allocated] = field(default_factory=list)
    decisions: list[list[Decision]] = field(default_factory=list)


@dataclass
class Measurement:
    """A run as it was measured.

    Attributes:
        timeline: the median of every instruction over the iterations; where arrival decides who
            meets, the times of one iteration.
        iteration_times: seconds of each iteration.
        losses: the loss of each training step of the iterations.
        parameters_norm: the L2 norm of all parameters at the end.
        staleness: how many versions old the weights of each stage were (see
            `simulator.program.staleness`).
        moe: the load of experts (see `expert_load`); None for models without.
        loss_scale: its last value and the skipped steps; None where it is not used.
        pacing: how much of a paced run was real work (see `pacing.combine`); None for others.
        allocated: the peaks of the allocator of each rank, medians over the iterations; empty on
            CPUs.
        decisions: who met whom because of when they arrived, per iteration, those to get warm
            included; empty where arrival decides nothing.
        consensus_distance: how far replicas were apart, in each step of the last iteration and
            at its end; None where they have the same parameters.
    """

    timeline: Timeline
    iteration_times: list[float]
    losses: list[float]
    parameters_norm: float
    staleness: list[dict[str, Any]] = field(default_factory=list)
    moe: dict[str, Any] | None = None
    loss_scale: dict[str, Any] | None = None
    pacing: dict[str, Any] | None = None
    allocated: list[Allocated] = field(default_factory=list)
    decisions: list[list[Decision]] = field(default_factory=list)
    consensus_distance: list[float] | None = None

    @property
    def noise_floor(self) -> float:
        """Half the distance from the 10th to the 90th percentile of the iteration time ÷ median.

        An error below it cannot be told from noise.
        """
        low, middle, high = np.percentile(self.iteration_times, [10, 50, 90])
        return float((high - low) / (2 * middle)) if middle > 0 else 0.0


def aligned(program: Program, records: list[RankRecord]) -> tuple[Floats, Floats, Floats]:
    """Return when each instruction was posted, started and ended, in every iteration.

    A communication starts when its last participant has posted it; all clocks are already
    aligned. A participant that was done before (see `needs_all`) has not waited for the last:
    its span is what it took, so that its stream is free when it really was.
    """
    posted = np.concatenate([np.array(r.posted, dtype=np.float64) for r in records], axis=1)
    end = np.concatenate([np.array(r.end, dtype=np.float64) for r in records], axis=1)
    start = posted.copy()
    for participants in program.meetings:
        members = [member.uid for member in participants]
        last = posted[:, members].max(axis=1, keepdims=True)
        needy = np.array([needs_all(member.rank, member.task) for member in participants])
        early = ~needy & (end[:, members] < last)
        start[:, members] = np.where(early, posted[:, members], last)
    for row, decisions in enumerate(decisions_of(program, records)[-len(posted) :]):
        for decision in decisions:
            start[row, decision] = posted[row, decision].max()
    return posted, start, np.maximum(end, start)


def decisions_of(program: Program, records: list[RankRecord]) -> list[list[Decision]]:
    """Return what arrival decided in every iteration, those to get warm included; else nothing."""
    if not program.queues:
        return []
    iterations = zip(*(record.decisions for record in records), strict=True)
    return [[decision for rank in ranks for decision in rank] for ranks in iterations]


def merge(program: Program, records: list[RankRecord]) -> tuple[Timeline, list[float]]:
    """Return the measured timeline and the seconds of each iteration.

    Medians of pointwise ordered samples are ordered, so the median timeline obeys the
    program's dependencies as every single iteration does. Where arrival decides who meets, they
    would mix meetings that differ, so there the times are those of the iteration that took the
    median time (of an even number the shorter one of the two in the middle).
    """
    columns = posted, _, end = aligned(program, records)
    times = [float(t) for t in end.max(axis=1)]
    if program.queues:
        return _of_one_iteration(program, records, columns, times), times
    memory, first = [], 0
    for record, instructions in zip(records, program.ranks, strict=True):
        mine = slice(first, first := first + len(instructions))
        steps = [_samples(record.resident, changes) for changes in record.memory]
        memory.append(usual_memory(steps, instructions, posted[:, mine], end[:, mine], times))
    timeline = Timeline.of_program(program, *map(_median, columns), memory=memory)
    return timeline, times


def _of_one_iteration(
    program: Program,
    records: list[RankRecord],
    columns: tuple[Floats, Floats, Floats],
    times: list[float],
) -> Timeline:
    """Return the timeline of the iteration that took the median time."""
    usual = usual_iteration(times)
    memory = [_samples(record.resident, record.memory[usual]) for record in records]
    timeline = Timeline.of_program(program, *(column[usual] for column in columns), memory=memory)
    decisions = decisions_of(program, records)[usual - len(times)]
    timeline.decisions = sorted(decisions, key=lambda decision: timeline.start[decision.accept])
    timeline.idle = idle_instructions(program.queues, decisions)
    return timeline


def _median(samples: Floats) -> Floats:
    return np.median(samples, axis=0)


def _samples(resident: MemoryParts, changes: list[tuple[float, int, TensorName]]) -> MemorySamples:
    """Return what one rank held in one iteration, and the parts of its first peak."""
    changes = sorted(changes)
    times = np.array([0.0, *(time for time, _, _ in changes)])
    held = np.cumsum([sum(resident), *(change for _, change, _ in changes)])
    parts = list(resident)
    for _, change, name in changes[: int(held.argmax())]:
        parts[part_of(name)] += change
    return MemorySamples(times, held.astype(np.int64), MemoryParts(*parts))


def to_json(measurement: Measurement) -> dict[str, Any]:
    """Return a measurement for the pipe between processes (not a file format)."""
    timeline = measurement.timeline
    return {
        "posted": timeline.posted.tolist(),
        "start": timeline.start.tolist(),
        "end": timeline.end.tolist(),
        "memory": [[m.times.tolist(), m.nbytes.tolist(), m.peak_parts] for m in timeline.memory],
        "iteration_times": measurement.iteration_times,
        "losses": measurement.losses,
        "parameters_norm": measurement.parameters_norm,
        "staleness": measurement.staleness,
        "moe": measurement.moe,
        "loss_scale": measurement.loss_scale,
        "pacing": measurement.pacing,
        "allocated": measurement.allocated,
        "decisions": measurement.decisions,
        "consensus_distance": measurement.consensus_distance,
        "shown_decisions": timeline.decisions,
        "idle": timeline.idle,
    }


def from_json(program: Program, data: dict[str, Any]) -> Measurement:
    """Return the measurement of `program` that `to_json` wrote."""
    timeline = Timeline.of_program(
        program,
        *(np.array(data[column]) for column in ("posted", "start", "end")),
        memory=[
            MemorySamples(np.array(times), np.array(nbytes), MemoryParts(*parts))
            for times, nbytes, parts in data["memory"]
        ],
        decisions=_decisions(data["shown_decisions"]),
        idle=data["idle"],
    )
    return Measurement(
        timeline,
        data["iteration_times"],
        data["losses"],
        data["parameters_norm"],
        data["staleness"],
        data["moe"],
        data["loss_scale"],
        data["pacing"],
        [Allocated(*peaks) for peaks in data["allocated"]],
        [_decisions(iteration) for iteration in data["decisions"]],
        data["consensus_distance"],
    )


def _decisions(pairs: list[list[int]]) -> list[Decision]:
    return [Decision(*pair) for pair in pairs]
