"""A plan that a GPU's memory cannot hold is refused before it takes any of it."""

from __future__ import annotations

import torch

from runtime.launch.job import Job
from runtime.launch.least_memory import least_memory
from simulator.experiment.section import ExperimentError
from simulator.strategies.lowering import lower
from simulator.units import listed, nbytes

TWICE = (
    "to compare, weights, gradients and optimizer states are there twice: for the measured steps "
    "and for calibration; `twinline calibrate` and `twinline run` have them once"
)


def check_device_memory(job: Job, rank: int, local_rank: int, device: torch.device) -> None:
    """Refuse ranks that need more memory than the GPU they share has.

    Args:
        job: what they are to do; ``run.check_memory = false`` switches the check off.
        rank: one of them.
        local_rank: its number on this host.
        device: theirs; that of a host has been checked before.

    Raises:
        ExperimentError: with what is needed and what is there.
    """
    experiment = job.experiment
    if device.type != "cuda" or not experiment.run.check_memory:
        return
    sharing = experiment.cluster.ranks_per_device
    first = rank - local_rank % sharing
    sharers = range(first, min(first + sharing, experiment.world_size))
    needed = least_memory(job, lower(experiment), sharers)
    there = torch.cuda.get_device_properties(device).total_memory
    if needed > there:
        twice = f"; {TWICE}" if job.measure and job.calibrate else ""
        raise ExperimentError(
            f"parallel: GPU {device.index} needs at least {nbytes(needed)} of memory for rank "
            f"{listed(sharers)}; it has {nbytes(there)}; allowed: fewer or smaller "
            f"ranks, or run.check_memory = false{twice}"
        )
