"""The time of hosts that launch instructions, and whether it is hidden behind what devices do."""

from __future__ import annotations

from simulator.cluster.cluster import Cluster
from simulator.experiment.experiment import Experiment
from simulator.experiment.host_choice import AHEAD, runs_ahead
from simulator.program.operations import COMMUNICATION
from simulator.program.program import Program
from simulator.units import seconds


def hides_host(experiment: Experiment, program: Program) -> bool:
    """Tell whether hosts are predicted to be ahead of devices, which so never wait for them.

    A CPU is its own host: whatever runs ahead there takes the time of passes.
    """
    return experiment.run.device == "cuda" and runs_ahead(experiment, program)


def launch_seconds(program: Program, cluster: Cluster) -> float:
    """Return how long the busiest host takes to launch its list, by what calibration has measured.

    That is an upper bound: what is measured between two passes contains that the host was told
    of the end of the first one.
    """
    longest = 0.0
    for columns in program.columns:
        sent = [task.op in COMMUNICATION for task in columns.tasks]
        count = sum(sent[number] for number in columns.task.tolist())
        passes = len(columns) - count
        longest = max(longest, cluster.issue_s * passes + cluster.queue_s * count)
    return longest


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
    least_s = launch_seconds(program, cluster)
    if least_s <= predicted_s:
        return []
    return [
        f"launching takes hosts up to {seconds(least_s)}, longer than the predicted "
        f"{seconds(predicted_s)}: they may not stay ahead of their devices, as was assumed"
    ]
