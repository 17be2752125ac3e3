"""The memory of each rank over time, from the tensors its instructions allocate and free."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulator.program.program import Program
from simulator.timeline.timeline import Floats, MemorySamples


def usual_memory(
    steps: Sequence[MemorySamples], events: Floats, seconds: Sequence[float]
) -> MemorySamples:
    """Return what one rank usually holds, on the clock of the median of all steps.

    What overlaps, and so the peak, is not the same in each step. The samples are those of a
    step with the median peak (of an even number the lower one), and among such steps of the
    one that took nearest to the median time. Its k-th event becomes the k-th of the median
    timeline, so that the curve belongs to the bars that are drawn of that timeline.

    Args:
        steps: the samples of the rank in every step.
        events: seconds at which its instructions are posted and end, one row a step.
        seconds: the iteration time of each step.
    """
    middle = sorted(samples.peak for samples in steps)[(len(steps) - 1) // 2]
    usual = float(np.median(seconds))
    candidates = [n for n, samples in enumerate(steps) if samples.peak == middle]
    chosen = min(candidates, key=lambda number: abs(seconds[number] - usual))
    there, here = np.sort(events[chosen]), np.sort(np.median(events, axis=0))
    times = np.interp(steps[chosen].times, np.append(0.0, there), np.append(0.0, here))
    return MemorySamples(times, steps[chosen].nbytes)


def memory_samples(program: Program, posted: Floats, end: Floats) -> list[MemorySamples]:
    """Return what every rank holds: allocated when an instruction is posted, freed at its end.

    At equal times what ends frees before what begins allocates. The first sample is what
    is resident (parameters, gradients, optimizer state).
    """
    samples = []
    first = 0
    for instructions, held in zip(program.ranks, program.resident, strict=True):
        sizes: dict[str, int] = {}
        for task in {id(i.task): i.task for i in instructions}.values():
            sizes.update((tensor.name, tensor.nbytes) for tensor in task.allocates)
        allocated: dict[int, int] = {}
        freed: dict[int, int] = {}
        for instruction in instructions:
            task = instruction.task
            if id(task) not in allocated:
                allocated[id(task)] = sum(tensor.nbytes for tensor in task.allocates)
                freed[id(task)] = sum(sizes.get(name, 0) for name in task.frees)
        count = len(instructions)
        gains = np.array([allocated[id(i.task)] for i in instructions], dtype=np.int64)
        losses = np.array([freed[id(i.task)] for i in instructions], dtype=np.int64)
        times = np.concatenate([posted[first : first + count], end[first : first + count]])
        changes = np.concatenate([gains, -losses])
        kept = changes != 0
        times, changes = times[kept], changes[kept]
        order = np.lexsort((changes, times))
        resident = sum(held.values())
        samples.append(
            MemorySamples(
                np.concatenate([[0.0], times[order]]),
                np.concatenate([[resident], resident + np.cumsum(changes[order])]).astype(np.int64),
            )
        )
        first += count
    return samples
