"""Start a job on processes of this machine, after what can be refused before."""

from __future__ import annotations

import importlib.util
from typing import Any

from runtime.execution.host_memory import check_host_memory
from runtime.execution.uneven_ranks import check_speeds_are_paced
from runtime.launch.job import Job
from runtime.launch.launcher import OnProgress, Workers
from simulator.experiment.section import ExperimentError
from simulator.program.program import Program


def start(
    job: Job, program: Program, on_progress: OnProgress | None, workers: Workers | None
) -> dict[str, Any]:
    """Return what rank 0 answers to `job`.

    Args:
        job: the experiment, and whether to measure and to calibrate.
        program: of the experiment.
        on_progress: called with the share done (0 to 1) and what is being done.
        workers: processes to use; None: new ones, ended afterwards.

    Raises:
        ExperimentError: torch is not installed, the program does not fit into memory, or its ranks
            would not have the speeds that they should.
        LaunchError: a rank failed; names the rank and the instruction.
    """
    if importlib.util.find_spec("torch") is None:
        raise ExperimentError("torch is not installed: pip install -e '.[runtime]'")
    check_speeds_are_paced(job.experiment)
    check_host_memory(job, program, program.num_ranks)
    if workers is not None:
        return workers.run(job, on_progress)
    with Workers(job.experiment.world_size) as own:
        return own.run(job, on_progress)
