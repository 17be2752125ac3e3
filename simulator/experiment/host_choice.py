"""The choice between a host that runs ahead of its device and one that waits for it."""

from __future__ import annotations

from simulator.experiment.experiment import Experiment
from simulator.experiment.section import ExperimentError
from simulator.program.errors import ProgramError
from simulator.program.launch_order import check_launch_order
from simulator.program.program import Program

AHEAD, OTHERS = "runs-ahead", "'auto', 'waits'"


def uses_nccl(experiment: Experiment) -> bool:
    """Tell whether tensors of passes are sent with NCCL."""
    run, sharing = experiment.run, experiment.cluster.ranks_per_device
    if run.device == "cpu" or run.backend == "gloo":
        return False
    return run.backend == "nccl" or sharing == 1


def runs_ahead(experiment: Experiment, program: Program) -> bool:
    """Tell whether the hosts of ranks run ahead of their devices in a run.

    Unless told otherwise they do so on GPUs, where they can.

    Raises:
        ExperimentError: they are told to, and `program` would hang.
    """
    run = experiment.run
    on_gpu = run.device == "cuda"
    if run.host == "waits" or (run.host == "auto" and not on_gpu):
        return False
    if _obstacle(experiment) is not None:
        return False
    try:
        if on_gpu:  # a CPU has no order of launches
            check_launch_order(program)
    except ProgramError as error:
        if run.host == "auto":
            return False
        raise ExperimentError(f"run.host = '{AHEAD}': {error}; allowed: {OTHERS}") from None
    return True


def check_host(experiment: Experiment) -> None:
    """Refuse a host that should run ahead where it has to know what has ended.

    Raises:
        ExperimentError: names what it would have to wait for.
    """
    obstacle = _obstacle(experiment) if experiment.run.host == AHEAD else None
    if obstacle is not None:
        raise ExperimentError(f"run.host = '{AHEAD}': {obstacle}; allowed: {OTHERS}")


def _obstacle(experiment: Experiment) -> str | None:
    """Return why no host can run ahead; None: it can."""
    run = experiment.run
    if run.pace is not None:
        return "with run.pace the host sleeps until each instruction is due"
    if not experiment.workload.family.has_parameters:
        model = experiment.workload.model
        return f"with workload.model = {model!r} the host sleeps until each instruction is due"
    if experiment.parallel.has_arrivals:
        style = experiment.parallel.data_style
        return f"with parallel.data_style = {style!r} the host decides who is served"
    if run.device == "cuda" and not uses_nccl(experiment):
        return "on GPUs gloo's transfers are of the host, which waits for the device"
    return None
