"""The time of hosts that launch instructions, and whether it is hidden behind what devices do."""

from __future__ import annotations

import numpy as np

from simulator.cluster.cluster import Cluster
from simulator.experiment.experiment import Experiment
from simulator.experiment.host_choice import AHEAD, runs_ahead
from simulator.program.operations import COMMUNICATION
from simulator.program.program import Program
from simulator.units import seconds

BUSY = 0.9
"""The share of a prediction from which on launching is said to decide it."""


def hides_host(experiment: Experiment, program: Program) -> bool:
    """Tell whether hosts are predicted to be ahead of devices, which so never wait for them.

    A CPU is its own host: whatever runs ahead there takes the time of passes.
    """
    return experiment.run.device == "cuda" and runs_ahead(experiment, program)


def launch_times(program: Program, cluster: Cluster) -> list[float]:
    """Return by uid when the host of a rank that never waits has launched an instruction.

    Hosts take as long as calibration has measured for those that wait. That is an upper bound:
    what is measured between two passes contains that the host was told of the end of the first one.
    """
    found: list[float] = []
    for columns in program.columns:
        of_task = [
            cluster.queue_s if task.op in COMMUNICATION else cluster.issue_s
            for task in columns.tasks
        ]
        found += np.cumsum(np.array(of_task)[columns.task]).tolist()
    return found


def host_notes(
    experiment: Experiment, program: Program, cluster: Cluster, predicted_s: float
) -> list[str]:
    """Return what a prediction assumes of hosts that run ahead.

    Args:
        experiment, program, cluster: what was predicted.
        predicted_s: how long all of the program takes.
    """
    if not hides_host(experiment, program):
        if experiment.run.host == AHEAD:
            return [f"run.host = '{AHEAD}': on CPUs predicted as if hosts waited"]
        return []
    least_s = max(launch_times(program, cluster), default=0.0)
    if least_s < BUSY * predicted_s:
        return []
    return [
        f"hosts do not stay ahead of their devices: of {seconds(predicted_s)} launching takes up "
        f"to {seconds(least_s)}"
    ]
