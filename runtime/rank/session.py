"""One job on one rank, in a process group that exists already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from runtime.calibration.calibrator import Calibrator
from runtime.executor.devices import backend_of
from runtime.executor.errors import ExecutionError, failure_of, is_out_of_memory
from runtime.executor.groups import Groups
from runtime.executor.rank import Rank
from runtime.launch.job import Job
from runtime.measurement.clock import Clock
from runtime.measurement.merge import to_json
from runtime.progress import Progress
from runtime.rank.agreement import check_same_experiment
from runtime.rank.device_memory import TWICE
from runtime.rank.final_state import gathered_tensors
from runtime.rank.measured_run import MeasuredRun
from simulator.strategies.lowering import lower

Report = Callable[[float, str], None]
"""Called on rank 0 with the share of the work that is done (0 to 1) and what comes next."""

FIRST_CALIBRATION = 0.3
"""The share of a calibrated job that passes before its first step or round."""


def run_job(
    job: Job, number: int, device: torch.device, progress: Progress, report: Report
) -> dict[str, Any] | None:
    """Run `job` on this rank; the result, as JSON, is returned on rank 0 (None elsewhere).

    Raises:
        DisagreementError: the ranks were given different experiments.
        ExperimentError: the program would hang where hosts run ahead.
        ExecutionError: an instruction failed.
    """
    experiment = job.experiment
    program = lower(experiment)
    program_hash = program.hash()
    check_same_experiment(experiment, program_hash)
    rank, clock = Rank(experiment, program, number, device, progress), Clock()
    calibrator = Calibrator(rank, clock, wide=not job.measure) if job.calibrate else None
    programs = [program, *(calibrator.transfers.programs if calibrator else ())]
    backend = backend_of(experiment)
    groups = Groups(programs, experiment.run.timeout_s, backend)
    if backend == "nccl":
        groups.warm_up(device)
    if calibrator:
        calibrator.begin(groups, lambda share, what: report(FIRST_CALIBRATION * share, what))
    steps = MeasuredRun(job, rank, groups, clock) if job.measure else None
    done = FIRST_CALIBRATION if calibrator else 0.0

    def before_step(share: float, what: str) -> None:
        report(done + (1 - done) * share, what)
        if calibrator:
            calibrator.round()

    measurement = None
    try:
        if steps:
            measurement = steps.run(before_step)
        else:
            count = experiment.run.iterations
            for round_number in range(count):
                before_step(round_number / count, "passes")
        profile = calibrator.profile() if calibrator else None
        tensors = gathered_tensors(steps.context) if steps and job.return_tensors else None
    except RuntimeError as error:
        if calibrator and steps and is_out_of_memory(error):
            failure = failure_of(error, number, experiment.run.timeout_s)
            raise ExecutionError(f"{failure}; {TWICE}") from error
        raise
    finally:
        if steps:
            steps.close()
        if calibrator:
            calibrator.close()
    if number != 0:
        return None
    return {
        "hash": program_hash,
        "measurement": to_json(measurement) if measurement else None,
        "profile": profile,
        "tensors": tensors,
    }
