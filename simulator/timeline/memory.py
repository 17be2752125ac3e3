"""The memory of each rank over time, from the tensors its instructions allocate and free."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from simulator.program.columns import Columns
from simulator.program.instruction import Instruction
from simulator.program.program import Program
from simulator.program.stream import COMPUTE_STREAM
from simulator.program.tensors import TensorKind, TensorName
from simulator.timeline.moments import in_order
from simulator.timeline.timeline import Floats, MemoryParts, MemorySamples

PARTS = {
    TensorKind.ACTIVATION: "activations",
    TensorKind.GRADIENT: "activations",
    TensorKind.SAVED: "activations",
    TensorKind.DEFERRED: "activations",
    TensorKind.STASH: "parameters",
}
"""The part of `MemoryParts` that a kind of tensor is in; all others are buffers."""


def usual_memory(
    steps: Sequence[MemorySamples],
    instructions: Sequence[Instruction],
    posted: Floats,
    end: Floats,
    seconds: Sequence[float],
) -> MemorySamples:
    """Return what one rank usually holds, on the clock of the median of all steps.

    What overlaps, and so the peak, is not the same in each step. The samples are those of a
    step with the median peak (of an even number the lower one), and among such steps of the
    one that took nearest to the median time. They are moved to when the same instructions are
    posted and end in the median timeline, so that the curve belongs to the bars that are drawn
    of it. Instructions of the compute stream have one order in all steps. What a communication
    changes stays between the same two of their moments, where it may have been in that step only.

    Args:
        steps: the samples of the rank in every step.
        instructions: those of the rank.
        posted, end: seconds, one row a step, one column an instruction.
        seconds: the iteration time of each step.
    """
    middle = sorted(samples.peak for samples in steps)[(len(steps) - 1) // 2]
    usual = float(np.median(seconds))
    candidates = [n for n, samples in enumerate(steps) if samples.peak == middle]
    chosen = min(candidates, key=lambda number: abs(seconds[number] - usual))
    moments = np.concatenate([posted, end], axis=1)
    order = np.argsort(moments[chosen], kind="stable")
    there, here = moments[chosen][order], np.median(moments, axis=0)[order]
    ordered = np.array([i.task.stream == COMPUTE_STREAM for i in instructions] * 2, bool)[order]
    before = np.maximum.accumulate(np.where(ordered, here, 0.0))
    behind = np.minimum.accumulate(np.where(ordered, here, np.inf)[::-1])[::-1]
    here = np.maximum.accumulate(np.clip(here, before, behind))
    times = np.interp(steps[chosen].times, np.append(0.0, there), np.append(0.0, here))
    return steps[chosen]._replace(times=times)


def memory_samples(
    program: Program, posted: Floats, end: Floats, idle: Sequence[int] = ()
) -> list[MemorySamples]:
    """Return what every rank holds: allocated when an instruction is posted, freed at its end.

    At times that are equal but for rounding, what ends frees before what begins allocates. The
    first sample is what is resident (parameters, gradients, optimizer state). Instructions that
    had nothing to do, `idle`, neither allocate nor free.
    """
    acts = np.ones(len(program), dtype=bool)
    acts[list(idle)] = False
    samples, first = [], 0
    for columns, held in zip(program.columns, program.resident, strict=True):
        last = first + len(columns)
        known = {name: nbytes for name, nbytes in held.items() if name in MemoryParts._fields}
        resident = MemoryParts(**known, buffers=sum(held.values()) - sum(known.values()))
        mine = slice(first, last)
        samples.append(_samples(columns, resident, posted[mine], end[mine], acts[mine]))
        first = last
    return samples


def _samples(
    columns: Columns,
    resident: MemoryParts,
    posted: Floats,
    end: Floats,
    acts: npt.NDArray[np.bool_],
) -> MemorySamples:
    """Return what one rank holds beside and with what is resident."""
    number, tasks = columns.task, columns.tasks
    sizes = {tensor.name: tensor.nbytes for task in tasks for tensor in task.allocates}
    gains, losses = np.zeros((2, len(tasks), len(MemoryParts._fields)), dtype=np.int64)
    for row, task in enumerate(tasks):
        for tensor in task.allocates:
            gains[row, part_of(tensor.name)] += tensor.nbytes
        for name in task.frees:
            losses[row, part_of(name)] += sizes.get(name, 0)
    times = np.concatenate([posted, end])
    changes = np.concatenate([gains.sum(axis=1)[number], -losses.sum(axis=1)[number]])
    changes *= np.concatenate([acts, acts])
    events = np.flatnonzero(changes)
    order, at = in_order(times[events], changes[events])
    events = events[order]
    held = sum(resident) + np.concatenate([[0], np.cumsum(changes[events])])
    before = events[: int(held.argmax())]  # what had happened at the peak
    begun, ended = before[before < len(number)], before[before >= len(number)] - len(number)
    parts = np.array(resident)
    for ways, which in ((gains, begun), (-losses, ended)):
        parts += np.bincount(number[which], minlength=len(tasks)) @ ways
    return MemorySamples(
        np.concatenate([[0.0], at]),
        held.astype(np.int64),
        MemoryParts(*parts.tolist()),
    )


def part_of(name: TensorName) -> int:
    """Return the place in `MemoryParts` of a tensor that instructions allocate."""
    return MemoryParts._fields.index(PARTS.get(name.kind, "buffers"))
