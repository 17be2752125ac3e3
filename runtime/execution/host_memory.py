"""A plan that this host's memory cannot hold is refused before its processes start."""

from __future__ import annotations

from runtime import host
from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.program.instruction import Instruction
from simulator.program.program import Program
from simulator.units import nbytes


def check_host_memory(experiment: Experiment, program: Program, ranks: int) -> None:
    """Refuse ranks that need more memory than this host has available.

    GPUs have memory of their own, which is not checked.

    Args:
        experiment: ``run.check_memory = false`` switches the check off.
        program: of all ranks.
        ranks: how many of them this host is to run.

    Raises:
        ExperimentError: with what is needed and what is there.
    """
    available = host.available_memory_bytes()
    if not (experiment.run.check_memory and available and experiment.run.device == "cpu"):
        return
    needed = sum(least_peaks(program)) * ranks / program.num_ranks
    if needed > available:
        raise ExperimentError(
            f"parallel: {ranks} ranks of this plan need at least {nbytes(needed)} of memory; this "
            f"host has {nbytes(available)} available; allowed: fewer or smaller ranks, or "
            "run.check_memory = false"
        )


def least_peaks(program: Program) -> list[int]:
    """Return per rank the bytes that it holds at once if every instruction ends at once.

    In a run, communication frees its tensors later, so that peaks can be larger, never smaller.
    """
    return [
        _least_peak(instructions, sum(resident.values()))
        for instructions, resident in zip(program.ranks, program.resident, strict=True)
    ]


def _least_peak(instructions: list[Instruction], resident: int) -> int:
    sizes = {
        tensor.name: tensor.nbytes
        for task in {id(i.task): i.task for i in instructions}.values()
        for tensor in task.allocates
    }
    held = peak = resident
    for instruction in instructions:
        held += sum(tensor.nbytes for tensor in instruction.task.allocates)
        peak = max(peak, held)
        held -= sum(sizes.get(name, 0) for name in instruction.task.frees)
    return peak
