"""The memory that the ranks of a job need at least, before anything has run."""

from __future__ import annotations

from collections.abc import Iterable

from runtime.launch.job import Job
from simulator.program.program import Program


def least_memory(job: Job, program: Program, ranks: Iterable[int]) -> int:
    """Return the bytes that some ranks hold at once if every instruction ends at once.

    In a run, communication frees its tensors later, so that peaks can be larger, never smaller.
    A job that measures and calibrates in turn has weights, gradients and optimizer states of
    its own for each of the two.
    """
    both = job.measure and job.calibrate
    return sum(_least_peak(program, rank) + both * _resident(program, rank) for rank in ranks)


def _resident(program: Program, rank: int) -> int:
    return sum(program.resident[rank].values())


def _least_peak(program: Program, rank: int) -> int:
    instructions = program.ranks[rank]
    sizes = {
        tensor.name: tensor.nbytes
        for task in {id(i.task): i.task for i in instructions}.values()
        for tensor in task.allocates
    }
    held = peak = _resident(program, rank)
    for instruction in instructions:
        held += sum(tensor.nbytes for tensor in instruction.task.allocates)
        peak = max(peak, held)
        held -= sum(sizes.get(name, 0) for name in instruction.task.frees)
    return peak
