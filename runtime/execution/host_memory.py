"""A plan that this host's memory cannot hold is refused before its processes start."""

from __future__ import annotations

from runtime import host
from runtime.launch.job import Job
from runtime.launch.least_memory import least_memory
from simulator.experiment.section import ExperimentError
from simulator.program.program import Program
from simulator.units import nbytes


def check_host_memory(job: Job, program: Program, ranks: int) -> None:
    """Refuse ranks that need more memory than this host has available.

    Ranks on GPUs check their devices' memory themselves (`runtime.rank.device_memory`).

    Args:
        job: what they are to do; ``run.check_memory = false`` switches the check off.
        program: of all ranks.
        ranks: how many of them this host is to run.

    Raises:
        ExperimentError: with what is needed and what is there.
    """
    experiment, available = job.experiment, host.available_memory_bytes()
    if not (experiment.run.check_memory and available and experiment.run.device == "cpu"):
        return
    needed = least_memory(job, program, range(program.num_ranks)) * ranks / program.num_ranks
    if needed > available:
        raise ExperimentError(
            f"parallel: {ranks} ranks of this plan need at least {nbytes(needed)} of memory; this "
            f"host has {nbytes(available)} available; allowed: fewer or smaller ranks, or "
            "run.check_memory = false"
        )
